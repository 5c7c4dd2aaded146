"""An archive gives its pictures, and nothing that it says about itself is believed."""

import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth.errors import UserError
from dreambooth.photos import archive
from dreambooth.photos.archive import is_archive, unpack
from tests.unit.photos.pictures import a_photo, picture_bytes

FIELD = "spec.subject.photos.uri"
TAR_KINDS = ("", "gz", "bz2", "xz")
Entry = tuple[str, bytes]


def zipped(entries: Sequence[Entry | tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in entries:
            opened.writestr(name, content)
    return data.getvalue()


def tarred(entries: Sequence[Entry | tarfile.TarInfo], compression: str = "gz") -> bytes:
    data = io.BytesIO()
    mode = f"w:{compression}"
    with tarfile.open(fileobj=data, mode=mode) as opened:  # type: ignore[call-overload]
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                opened.addfile(entry)
                continue
            name, content = entry
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return data.getvalue()


def unpacked(folder: Path, content: bytes) -> dict[str, bytes]:
    """What is in the destination afterwards, also checked to be alone there."""
    file, destination = folder / "photos.archive", folder / "out"
    file.write_bytes(content)
    destination.mkdir()
    assert is_archive(file)
    unpack(file, destination, name="photos.archive", field=FIELD)
    assert sorted(entry.name for entry in folder.iterdir()) == ["out", "photos.archive"]
    return {entry.name: entry.read_bytes() for entry in destination.iterdir()}


def refusal(folder: Path, content: bytes) -> UserError:
    with pytest.raises(UserError) as caught:
        unpacked(folder, content)
    assert "photos.archive" in caught.value.message
    assert caught.value.field == FIELD
    assert caught.value.remedy
    return caught.value


def link(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


PHOTOS: list[Entry] = [
    (f"rex/{name}", picture_bytes(a_photo(number)))
    for number, name in enumerate(("a.png", "b.JPG", "c.webp"))
]


@pytest.mark.parametrize("make", [zipped, *(lambda e, c=c: tarred(e, c) for c in TAR_KINDS)])
def test_pictures_are_taken_from_folders_and_all_else_is_left(tmp_path: Path, make: object) -> None:
    assert callable(make)
    others = [
        ("rex/notes.txt", b"notes"), ("__MACOSX/rex/._a.png", b"x"), ("rex/.DS_Store", b"x"),
        (".git/d.png", b"x"), ("rex/Thumbs.db", b"x"),
    ]  # fmt: skip
    found = unpacked(tmp_path, make([*PHOTOS, *others]))
    assert found == {PurePosixPath(name).name: content for name, content in PHOTOS}


def test_an_archive_that_windows_made_has_folders_too(tmp_path: Path) -> None:
    assert unpacked(tmp_path, zipped([("rex\\a.png", b"1"), ("max\\b.png", b"2")])) == {
        "a.png": b"1",
        "b.png": b"2",
    }


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "A", "b", "a-b", "é" * 100]), min_size=1, max_size=3),
        min_size=1, max_size=8, unique_by=tuple,
    )
)  # fmt: skip
@settings(max_examples=60)
def test_no_photo_is_lost_because_another_has_its_name(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]]
) -> None:
    entries = [("/".join(parts) + ".png", bytes([n])) for n, parts in enumerate(paths)]
    found = unpacked(tmp_path_factory.mktemp("archive"), zipped(entries))
    assert sorted(found.values()) == [content for _, content in entries]
    assert len({name.lower() for name in found}) == len(entries)


def test_names_do_not_depend_on_the_order_in_the_archive(tmp_path: Path) -> None:
    entries = [("a/1.png", b"a"), ("b/1.png", b"b"), ("a-1.png", b"c"), ("2.png", b"d")]
    found = []
    for place, order in (("one", entries), ("other", entries[::-1])):
        (tmp_path / place).mkdir()
        found.append(unpacked(tmp_path / place, zipped(order)))
    assert found[0] == found[1]
    assert len(found[0]) == len(entries)


@pytest.mark.parametrize(
    "name",
    ["../a.png", "rex/../../a.png", "/etc/a.png", "..\\a.png", "\\\\host\\share\\..\\a.png"],
)
@pytest.mark.parametrize("make", [zipped, tarred])
def test_an_entry_that_leads_out_refuses_the_archive(
    tmp_path: Path, name: str, make: object
) -> None:
    assert callable(make)
    error = refusal(tmp_path, make([("ok.png", b"1"), (name, b"2")]))
    assert "leads out of it" in error.message
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "entry",
    [
        link("a.png", tarfile.SYMTYPE), link("a.png", tarfile.LNKTYPE, "ok.png"),
        link("a.png", tarfile.CHRTYPE), link("a.png", tarfile.BLKTYPE),
        link("a.png", tarfile.FIFOTYPE), link("folder", tarfile.SYMTYPE),
    ],
    ids=["link", "hard link", "device", "disk", "pipe", "link to a folder"],
)  # fmt: skip
def test_an_entry_that_is_no_plain_file_refuses_the_archive(
    tmp_path: Path, entry: tarfile.TarInfo
) -> None:
    error = refusal(tmp_path, tarred([("ok.png", b"1"), entry]))
    assert f"no plain file, '{entry.name}'" in error.message


def test_a_link_in_a_zip_refuses_the_archive(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "no plain file" in refusal(tmp_path, zipped([(info, b"/etc/passwd")])).message


@pytest.mark.parametrize("kind", ["zip", "gz", "bz2", "xz"])
def test_an_archive_that_was_not_copied_to_its_end_is_still_known_as_one(
    tmp_path: Path, kind: str
) -> None:
    content = zipped(PHOTOS) if kind == "zip" else tarred(PHOTOS, kind)
    assert "damaged, or not complete" in refusal(tmp_path, content[: len(content) // 2]).message


def test_a_zip_with_a_password_is_refused_with_what_to_do(tmp_path: Path) -> None:
    content = bytearray(zipped([("a.png", b"secret")]))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    error = refusal(tmp_path, bytes(content))
    assert "encrypted" in error.message
    assert "without a password" in str(error.remedy)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_what_unpacks_to_too_much_is_cut_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object
) -> None:
    assert callable(make)
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 3 * 2**20)
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 5 * 2**20)
    zeros = bytes(2 * 2**20)
    assert "more than" in refusal(tmp_path, make([("a.png", zeros * 2)])).message
    (tmp_path / "out" / "a.png").unlink()
    (tmp_path / "out").rmdir()
    error = refusal(tmp_path, make([(f"{n}.png", zeros) for n in range(4)]))
    assert "holds more than" in error.message
    written = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert written <= 5 * 2**20


def test_a_zip_that_lies_about_its_sizes_is_cut_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 1000)
    content = bytearray(zipped([("a.png", bytes(100_000))]))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.index(signature) + offset
        content[place : place + 4] = (10).to_bytes(4, "little")
    refusal(tmp_path, bytes(content))
    assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) <= 1000


@pytest.mark.parametrize("make", [zipped, lambda entries: tarred(entries, "")])
def test_an_archive_with_too_many_pictures_or_entries_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object
) -> None:
    assert callable(make)
    error = refusal(tmp_path, make([(f"{n}.png", b"x") for n in range(101)]))
    assert "101 files in photos.archive" in error.message
    monkeypatch.setattr(archive, "_MAX_MEMBERS", 5)
    (tmp_path / "out").rmdir()
    assert (
        "more than 5 entries"
        in refusal(tmp_path, make([(f"{n}.x", b"") for n in range(6)])).message
    )


@pytest.mark.parametrize("make", [zipped, tarred])
def test_an_archive_without_pictures_says_what_belongs_into_it(
    tmp_path: Path, make: object
) -> None:
    assert callable(make)
    error = refusal(tmp_path, make([("notes.txt", b"x")]))
    assert "no photos in photos.archive" in error.message
    assert "3 to 10 photos" in str(error.remedy)


@pytest.mark.parametrize("kind", ["zip", *TAR_KINDS])
@given(data=st.data())
@settings(max_examples=60)
def test_damage_anywhere_gives_a_refusal_or_pictures_and_never_another_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    content = bytearray(zipped(PHOTOS) if kind == "zip" else tarred(PHOTOS, kind))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.sampled_from([len(content), len(content) * 2 // 3, 700]))]
    folder = tmp_path_factory.mktemp("archive")
    file, destination = folder / "photos.archive", folder / "out"
    file.write_bytes(content)
    destination.mkdir()
    if not is_archive(file):
        return
    try:
        unpack(file, destination, name=file.name, field=FIELD)
    except UserError as error:
        assert file.name in error.message and error.field == FIELD
    else:
        assert list(destination.iterdir())


@pytest.mark.parametrize("kind", ["zip", "gz", "bz2", "xz"])
@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_damage_in_the_middle_of_a_large_archive_is_found(
    tmp_path: Path, kind: str, damage: str
) -> None:
    # As photos are: nothing in them that could be compressed, so decoders work through all of it.
    entries = [(f"{n}.png", random.Random(n).randbytes(300_000)) for n in range(3)]
    content = bytearray(zipped(entries) if kind == "zip" else tarred(entries, kind))
    middle = len(content) // 2
    if damage == "changed":
        content[middle : middle + 4] = b"ABCD"
    elif kind == "zip":
        # Its end, with the table of what is in it, stays.
        del content[middle : middle + 1000]
    else:
        del content[middle:]
    assert "damaged, or not complete" in refusal(tmp_path, bytes(content)).message


@pytest.mark.parametrize(
    ("beginning", "kind"), [(b"Rar!\x1a\x07\x01\0", "RAR"), (b"7z\xbc\xaf\x27\x1c", "7-Zip")]
)
def test_an_archive_of_another_kind_is_refused_with_the_kinds_that_are_read(
    tmp_path: Path, beginning: bytes, kind: str
) -> None:
    error = refusal(tmp_path, beginning + bytes(100))
    assert f"is a {kind} archive" in error.message
    assert error.remedy == "Make a zip or tar archive of the photos."


def test_a_bomb_in_front_of_the_pictures_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_MAX_UNPACKED_BYTES", 2**20)
    error = refusal(tmp_path, tarred([("zeros.bin", bytes(2**21)), ("a.png", b"1")], "xz"))
    assert "unpacks to more than" in error.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "PPM"])
def test_a_picture_is_no_archive(tmp_path: Path, kind: str) -> None:
    (tmp_path / "p").write_bytes(picture_bytes(a_photo(), kind))
    assert not is_archive(tmp_path / "p")


def test_an_empty_file_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "p").touch()
    assert not is_archive(tmp_path / "p")
