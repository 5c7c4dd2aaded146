"""Photos of a data set on the hub: its pictures alone, whatever else it holds."""

from pathlib import Path

import pytest

from dreambooth.api.job import HubPhotos, Photos
from dreambooth.errors import InfrastructureError, UserError
from dreambooth.photos import fetch
from dreambooth.photos.limits import MAX_FILE_BYTES
from tests.fake_hub import FakeHub, Repo
from tests.serving import QuietHandler
from tests.unit.photos.pictures import a_photo, picture_bytes

COMMIT = "5" * 40
FILES = {
    **{f"rex/{n}.png": picture_bytes(a_photo(n)) for n in range(3)},
    "rex/[best] one.JPG": picture_bytes(a_photo(9), "JPEG"),
    "rex/.hidden.png": b"x",
    "rex/older/0.png": b"x",
    "max/0.png": b"x",
    "README.md": b"# Pets",
    "weights.bin": b"x" * 5000,
}


def wanted(folder: Path, path: str | None = "rex", revision: str = COMMIT) -> list[str]:
    files = fetch(
        Photos(hub=HubPhotos("me/pets", revision, path)),
        workspace=folder,
        manifest_dir=folder,
        destination=folder / "got",
        mounts=None,
    )
    return [file.name for file in files]


@pytest.fixture
def pets(hub: FakeHub) -> Repo:
    repo = hub.datasets["me/pets"] = Repo(dict(FILES), COMMIT)
    return repo


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_the_pictures_directly_in_the_folder_are_downloaded_and_nothing_else(
    tmp_path: Path, hub: FakeHub, pets: Repo, revision: str
) -> None:
    names = ["0.png", "1.png", "2.png", "[best] one.JPG"]
    assert wanted(tmp_path, revision=revision) == names
    assert sorted(hub.downloads()) == [f"rex/{name}" for name in names]
    for name in names:
        assert (tmp_path / "got" / name).read_bytes() == FILES[f"rex/{name}"]
        assert not (tmp_path / "got" / name).is_symlink()
    # Neither the library's cache nor anything temporary stays.
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == names
    assert [path.name for path in tmp_path.iterdir()] == ["got"]


def test_a_private_data_set_is_read_with_the_token_of_the_environment(
    tmp_path: Path, pets: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    pets.access = "private"
    with pytest.raises(UserError, match="or it is private") as caught:
        wanted(tmp_path)
    assert "HF_TOKEN" in str(caught.value.remedy)
    assert "spec.subject.photos.hub" in str(caught.value.field)
    monkeypatch.setenv("HF_TOKEN", Repo.TOKEN)
    assert len(wanted(tmp_path)) == 4


@pytest.mark.parametrize(
    ("path", "files", "words", "remedy"),
    [
        (None, FILES, "no photos in me/pets", "hub.path to a folder that has some, such as max"),
        ("rexx", FILES, "no photos in me/pets/rexx", "a folder that has some, such as max"),
        ("x", {"a.png": b"x"}, "no photos in me/pets/x", "Leave photos.hub.path out"),
        (None, {"train.parquet": b"x"}, "no photos in me/pets", "in tables (Parquet)"),
        (None, {"README.md": b"x"}, "no photos in me/pets", "Name a data set with picture files"),
        (None, {f"{n}.png": b"" for n in range(101)}, "101 files in me/pets", "Choose the best"),
    ],
)
def test_a_data_set_without_usable_pictures_is_refused_before_any_download(
    tmp_path: Path,
    hub: FakeHub,
    pets: Repo,
    path: str | None,
    files: dict[str, bytes],
    words: str,
    remedy: str,
) -> None:
    pets.files = dict(files)
    with pytest.raises(UserError) as caught:
        wanted(tmp_path, path)
    assert words in caught.value.message
    assert remedy in str(caught.value.remedy)
    assert hub.downloads() == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_larger_than_any_photo_is_not_downloaded(
    tmp_path: Path, hub: FakeHub, pets: Repo
) -> None:
    pets.claimed_sizes["rex/1.png"] = MAX_FILE_BYTES + 1
    with pytest.raises(UserError, match=r"rex/1\.png has 200 MiB"):
        wanted(tmp_path)
    assert hub.downloads() == []


def test_a_missing_data_set_or_revision_is_named(tmp_path: Path, hub: FakeHub, pets: Repo) -> None:
    with pytest.raises(UserError, match="no revision v2") as caught:
        wanted(tmp_path, revision="v2")
    assert caught.value.field == "spec.subject.photos.hub.revision"
    hub.datasets.clear()
    with pytest.raises(UserError, match="there is no data set me/pets") as caught:
        wanted(tmp_path)
    assert caught.value.field == "spec.subject.photos.hub.repo"


def test_a_transfer_that_breaks_is_taken_up_where_it_broke(
    tmp_path: Path, hub: FakeHub, pets: Repo
) -> None:
    # The library keeps what comes in pieces of 10 MiB.
    large = picture_bytes(a_photo(3), "BMP") * 300
    pets.files = {"rex/0.bmp": large}
    broken: list[str] = []

    def break_once(handler: QuietHandler) -> bool:
        if handler.command != "GET" or "/resolve/" not in handler.path or broken:
            return False
        broken.append(handler.path)
        handler.break_off(large[: len(large) // 2], len(large))
        return True

    hub.faults.append(break_once)
    assert wanted(tmp_path) == ["0.bmp"]
    assert (tmp_path / "got" / "0.bmp").read_bytes() == large
    assert hub.sent == len(large) - 10 * 2**20


def test_a_hub_that_fails_leaves_nothing(tmp_path: Path, hub: FakeHub, pets: Repo) -> None:
    def fail_on_files(handler: QuietHandler) -> bool:
        if "/resolve/" in handler.path:
            handler.reply(500)
        return "/resolve/" in handler.path

    hub.faults.append(fail_on_files)
    with pytest.raises(InfrastructureError, match="does not give the data set me/pets") as caught:
        wanted(tmp_path)
    assert "run again" in str(caught.value.remedy)
    assert list(tmp_path.iterdir()) == []
