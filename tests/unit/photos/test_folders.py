"""Photos of this machine: a folder of the workspace, a mount of the cluster, a file:// URI."""

import errno
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreambooth.api.job import Photos
from dreambooth.errors import DreamBoothError, InfrastructureError, UserError
from dreambooth.photos import fetch, limits
from tests.unit.photos.pictures import save_photos


class Place:
    """A workspace, a folder with the manifest, and the cluster's mounts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace, self.manifest_dir = root / "workspace", root / "manifest"
        self.mounts, self.destination = root / "mounts", root / "workspace" / "got"
        for folder in (self.workspace, self.manifest_dir, self.mounts):
            folder.mkdir()

    def fetch(self, *, mounted: bool = True, **source: Any) -> list[str]:
        files = fetch(
            Photos(**source),
            workspace=self.workspace,
            manifest_dir=self.manifest_dir,
            destination=self.destination,
            mounts=self.mounts if mounted else None,
        )
        return [file.name for file in files]

    def refuses(self, kind: type[DreamBoothError] = UserError, **source: Any) -> DreamBoothError:
        """The error, after a look that nothing was left behind."""
        before = sorted(path.name for path in self.workspace.iterdir())
        with pytest.raises(kind) as caught:
            self.fetch(**source)
        assert sorted(path.name for path in self.workspace.iterdir()) == before
        assert str(caught.value.field).startswith("spec.subject.photos")
        assert caught.value.remedy
        return caught.value

    def mount(self, kind: str, name: str, count: int = 3) -> Path:
        """As the kubelet does it: a dated folder, a link `..data` to it, a link for each key."""
        folder = self.mounts / kind / name
        save_photos(folder / "..2024_05_01_10_00_00.123", count)
        (folder / "..data").symlink_to("..2024_05_01_10_00_00.123")
        for file in (folder / "..data").iterdir():
            (folder / file.name).symlink_to(Path("..data") / file.name)
        return folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


THREE = ["photo-0.png", "photo-1.png", "photo-2.png"]


def test_the_files_of_a_folder_are_copied_as_they_are(place: Place) -> None:
    files = save_photos(place.workspace / "rex", 3)
    assert place.fetch(path="rex") == THREE
    for file in files:
        assert (place.destination / file.name).read_bytes() == file.read_bytes()


def test_a_folder_beside_the_manifest_is_found_too_and_the_workspace_goes_first(
    place: Place,
) -> None:
    save_photos(place.manifest_dir / "rex", 3)
    assert place.fetch(path="rex") == THREE
    save_photos(place.workspace / "rex", 1)
    assert place.fetch(path="rex") == THREE[:1]


def test_hidden_files_and_folders_inside_are_left(place: Place) -> None:
    files = save_photos(place.workspace / "rex", 3)
    save_photos(place.workspace / "rex" / "older", 2)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png"):
        (files[0].parent / name).write_text("x")
    assert place.fetch(path="rex") == THREE


def test_what_was_fetched_before_is_replaced_and_nothing_else_appears(place: Place) -> None:
    save_photos(place.workspace / "rex", 3)
    place.fetch(path="rex")
    (place.workspace / "rex" / "photo-1.png").unlink()
    assert place.fetch(path="rex") == ["photo-0.png", "photo-2.png"]
    assert sorted(path.name for path in place.workspace.iterdir()) == ["got", "rex"]


def test_links_within_the_workspace_are_followed(place: Place) -> None:
    files = save_photos(place.workspace / "all", 3)
    (place.workspace / "rex").mkdir()
    (place.workspace / "rex" / "a.png").symlink_to(files[0])
    (place.workspace / "max").symlink_to("rex")
    assert place.fetch(path="max") == ["a.png"]
    assert not (place.destination / "a.png").is_symlink()
    assert (place.destination / "a.png").read_bytes() == files[0].read_bytes()


def spoil_nothing(folder: Path) -> None:
    """The folder is not even there."""


def make_file(folder: Path) -> None:
    folder.write_text("x")


def link_out(folder: Path) -> None:
    save_photos(folder.parent.parent / "private", 3)
    folder.symlink_to(folder.parent.parent / "private")


def link_file_out(folder: Path) -> None:
    link_out(folder.with_name("other"))
    folder.mkdir()
    (folder / "a.png").symlink_to(folder.parent.parent / "private" / "photo-0.png")


def link_nowhere(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.png").symlink_to("gone.png")


def link_in_a_circle(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.png").symlink_to("b.png")
    (folder / "b.png").symlink_to("a.png")


def put_a_pipe(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "a.png")


def put_a_socket(folder: Path) -> None:
    folder.mkdir()
    before = os.getcwd()
    os.chdir(folder)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("a.png")
    os.chdir(before)


def put_a_giant(folder: Path) -> None:
    folder.mkdir()
    with (folder / "a.png").open("wb") as file:
        file.truncate(limits.MAX_FILE_BYTES + 2**20)


def put_many_large(folder: Path) -> None:
    folder.mkdir()
    for number in range(12):
        with (folder / f"{number}.png").open("wb") as file:
            file.truncate(limits.MAX_FILE_BYTES)


def put_too_many(folder: Path) -> None:
    folder.mkdir()
    for number in range(101):
        (folder / f"{number}.png").touch()


@pytest.mark.parametrize(
    ("spoil", "words", "remedy"),
    [
        (spoil_nothing, "there is no folder rex, neither in", "correct the path"),
        (make_file, "rex is a file", "Give the folder"),
        (Path.mkdir, "no photos in rex", "3 to 10 photos"),
        (link_out, "rex is a link that leads out", "Copy the photos"),
        (link_file_out, "rex/a.png is a link that leads out", "Copy the photos"),
        (link_nowhere, "rex/a.png is a link that leads nowhere", "Replace it"),
        (link_in_a_circle, "rex/a.png is a link that leads nowhere", "Replace it"),
        (put_a_pipe, "rex/a.png is no plain file", "nothing but photos"),
        (put_a_socket, "rex/a.png is no plain file", "nothing but photos"),
        (put_a_giant, "a.png has 201 MiB, and a photo may have 200 MiB", "Save it smaller"),
        (put_many_large, "the 12 files in rex have 2.3 GiB", "Choose the best"),
        (put_too_many, "there are 101 files in rex", "Choose the best"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_folder_that_cannot_be_used_is_refused_with_what_to_do(
    place: Place, spoil: Callable[[Path], None], words: str, remedy: str
) -> None:
    spoil(place.workspace / "rex")
    error = place.refuses(path="rex")
    assert words in error.message
    assert remedy in str(error.remedy)
    assert error.field == "spec.subject.photos.path"


@pytest.mark.parametrize("path", ["/etc", "../manifest", "rex/../../manifest", "x" * 400])
def test_a_path_out_of_the_workspace_or_of_all_reason_is_refused(place: Place, path: str) -> None:
    save_photos(place.manifest_dir, 3)
    assert path in place.refuses(path=path).message


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EACCES, UserError, "cannot be read: permission denied"),
        (errno.EIO, InfrastructureError, "Input/output error"),
    ],
)
def test_a_photo_that_cannot_be_read_is_named(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[DreamBoothError],
    words: str,
) -> None:
    save_photos(place.workspace / "rex", 3)
    real = Path.open

    def refuse(self: Path, mode: str = "r") -> object:
        if self.name == "photo-1.png" and mode == "rb":
            raise OSError(number, os.strerror(number))
        return real(self, mode)

    monkeypatch.setattr(Path, "open", refuse)
    error = place.refuses(kind, path="rex")
    assert "photo-1.png" in error.message
    assert words in error.message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_is_the_workspaces_fault_and_not_the_photos(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    save_photos(place.workspace / "rex", 3)
    real = Path.open

    def refuse(self: Path, mode: str = "r") -> object:
        if self.name == "photo-1.png" and mode == "wb":
            raise OSError(number, os.strerror(number))
        return real(self, mode)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InfrastructureError, match="cannot write") as caught:
        place.fetch(path="rex")
    assert caught.value.field == str(place.destination / "photo-1.png")
    assert sorted(path.name for path in place.workspace.iterdir()) == ["rex"]


@pytest.mark.parametrize(("kind", "source"), [("configMap", "config_map"), ("secret", "secret")])
def test_a_mounted_object_gives_a_file_a_key(place: Place, kind: str, source: str) -> None:
    place.mount(kind, "rex-photos")
    named: dict[str, Any] = {source: "rex-photos"}
    assert place.fetch(**named) == THREE


def test_a_mount_may_not_lead_to_another(place: Place) -> None:
    place.mount("secret", "other")
    folder = place.mount("configMap", "rex")
    (folder / "stolen.png").symlink_to("../../secret/other/photo-0.png")
    assert "leads out" in place.refuses(config_map="rex").message


def test_an_object_that_is_not_mounted_is_the_clusters_fault(place: Place) -> None:
    error = place.refuses(InfrastructureError, config_map="rex")
    assert "ConfigMap rex is not mounted" in error.message
    assert error.field == "spec.subject.photos.configMap.name"


def test_without_a_cluster_an_object_of_it_is_refused_with_another_way(place: Place) -> None:
    with pytest.raises(UserError, match="which only a cluster has") as caught:
        place.fetch(mounted=False, secret="rex")
    assert "photos.path" in str(caught.value.remedy)


def test_a_file_uri_names_a_folder_a_photo_or_an_archive(place: Place) -> None:
    files = save_photos(place.root / "my photos", 3)
    with zipfile.ZipFile(place.root / "all.zip", "w") as archive:
        for file in files:
            archive.write(file, f"holiday/{file.name}")
    assert place.fetch(uri=(place.root / "my photos").as_uri()) == THREE
    assert place.fetch(uri=files[1].as_uri()) == ["photo-1.png"]
    assert place.fetch(uri=(place.root / "all.zip").as_uri()) == THREE
    assert place.fetch(uri=f"file://localhost{place.root}/my%20photos") == THREE


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("file:///no/such/place", "there is no file or folder /no/such/place"),
        ("file://server/share", "names the machine server"),
        (f"file:///{'x' * 300}", "no path that a file can have"),
        ("file:///x%00y", "no path that a file can have"),
        ("file:///dev/zero", "zero is no plain file"),
        ("ftp://example.org/a.zip", "photos cannot be read from ftp:"),
        ("s3:///nothing", "photos cannot be read from s3:"),
        ("https://[::1/a.zip", "is no URI"),
        ("https://me:secret@example.org/a.zip", "has a user name or password in it"),
    ],
)
def test_a_uri_that_cannot_be_read_is_refused_with_what_to_do(
    place: Place, uri: str, words: str
) -> None:
    error = place.refuses(uri=uri)
    assert words in error.message
    assert "secret" not in str(error).replace("secretRef", "")


def test_no_source_at_all_is_refused(place: Place) -> None:
    assert "no photo source" in place.refuses().message
