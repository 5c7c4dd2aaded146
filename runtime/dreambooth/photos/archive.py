"""Unpacking an archive that a stranger made: pictures only, nothing outside the folder, limits."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from dreambooth.errors import UserError
from dreambooth.photos.limits import (
    MAX_FILE_BYTES,
    MAX_TOTAL_BYTES,
    check_count,
    is_hidden,
    is_picture_name,
)
from dreambooth.workspace.atomic import disk_errors

_CHUNK = 2**20
# Anything with more entries is no archive of photos, and its directory alone costs memory.
_MAX_MEMBERS = 10_000
# In bytes; file systems take 255, and a number may come before it.
_LONGEST_NAME = 200
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError,
           NotImplementedError, RuntimeError, lzma.LZMAError)  # fmt: skip
# How archives begin: zip, gzip, bzip2, xz; and those that nothing here unpacks.
_COMPRESSED = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_FOREIGN = {b"Rar!": "RAR", b"7z\xbc\xaf": "7-Zip", b"\x28\xb5\x2f\xfd": "Zstandard"}
# All that a tar archive unpacks to: getting at its pictures means unpacking what is before them.
_MAX_UNPACKED_BYTES = 4 * MAX_TOTAL_BYTES
# What is read after the last picture, for the sake of the checksum behind it.
_MAX_REST = 64


@dataclass(frozen=True)
class _Member:
    """One entry.

    Attributes:
        name: As stored.
        kind: Whether it is a plain `file`, a `folder` or another thing, `special`.
        unpacked: Bytes that have to be unpacked to get at the next entry.
        key: The library's own.
    """

    name: str
    kind: str
    unpacked: int
    key: object


class _Archive(Protocol):
    def members(self) -> Iterable[_Member]: ...
    def open(self, member: _Member) -> IO[bytes]: ...
    def finish(self) -> None: ...


def is_archive(file: Path) -> bool:
    """Whether `file` is an archive, readable here or not, by its content."""
    try:
        # One that was cut off has no more than its beginning to be known by.
        if _head(file).startswith((*_COMPRESSED, *_FOREIGN)):
            return True
        return zipfile.is_zipfile(file) or tarfile.is_tarfile(file)
    except _BROKEN:
        return False


def unpack(archive: Path, destination: Path, *, name: str, field: str) -> None:
    """Writes the archive's pictures, at whatever depth, flat into `destination`.

    Sizes are counted while writing; what the archive says about itself is not believed.

    Args:
        archive: A zip or tar file, compressed or not.
        destination: Exists and is empty.
        name: Of the archive, for messages.
        field: Of the manifest.

    Raises:
        UserError: If it is damaged, encrypted, has entries that are links or lead out of it, or
            has no pictures or too many or too large ones.
    """
    _check_kind(archive, name, field)
    try:
        with _open(archive) as opened:
            pictures = _pictures(opened, name, field)
            total = 0
            for target, member in _flat_names(pictures):
                with opened.open(member) as source:
                    total += _write(source, destination / target, total, name, field)
            opened.finish()
    except UserError:
        raise
    except _BROKEN as error:
        encrypted = "password" in str(error) or "encrypted" in str(error)
        raise UserError(
            f"{name} is {'encrypted' if encrypted else 'damaged, or not complete'}",
            field=field,
            remedy="Make the archive anew, without a password.",
            reason="ArchiveNotReadable",
        ) from error


def _check_kind(archive: Path, name: str, field: str) -> None:
    for beginning, kind in _FOREIGN.items():
        if _head(archive).startswith(beginning):
            raise UserError(
                f"{name} is a {kind} archive, which cannot be read here",
                field=field,
                remedy="Make a zip or tar archive of the photos.",
                reason="ArchiveNotReadable",
            )


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(8)


def _pictures(archive: _Archive, name: str, field: str) -> list[_Member]:
    pictures = []
    unpacked = 0
    for number, member in enumerate(archive.members()):
        path = PurePosixPath(member.name.replace("\\", "/"))
        if number >= _MAX_MEMBERS:
            raise _refused(name, f"has more than {_MAX_MEMBERS:,} entries", field)
        unpacked += member.unpacked
        if unpacked > _MAX_UNPACKED_BYTES:
            raise _refused(name, f"unpacks to more than {_MAX_UNPACKED_BYTES >> 30} GiB", field)
        if path.is_absolute() or ".." in path.parts or "\0" in member.name:
            raise _refused(name, f"has an entry that leads out of it, {member.name!r}", field)
        if member.kind == "folder" or any(is_hidden(part) for part in path.parts):
            continue
        if member.kind != "file":
            raise _refused(name, f"has an entry that is no plain file, {member.name!r}", field)
        if is_picture_name(path.name):
            pictures.append(member)
    check_count([member.name for member in pictures], where=name, field=field)
    return pictures


def _flat_names(members: list[_Member]) -> list[tuple[str, _Member]]:
    """Target names without folders; where two would be the same, the folders become part of it.

    They depend on the paths alone, not on their order, and differ in more than case.
    """
    # An archive can hold the same path twice; the last one counts, as when it is unpacked.
    by_path = {PurePosixPath(member.name.replace("\\", "/")): member for member in members}
    plain = Counter(path.name.lower() for path in by_path)
    taken = {name for name, times in plain.items() if times == 1}
    targets = {}
    for path in sorted(by_path):
        targets[path] = path.name
        if plain[path.name.lower()] > 1:
            targets[path] = _free_name("-".join(path.parts), taken)
            taken.add(targets[path].lower())
    # In the archive's order: going back in a compressed one means unpacking it from the start.
    return [(targets[path], member) for path, member in by_path.items()]


def _free_name(name: str, taken: Collection[str]) -> str:
    """`name`, cut to what file systems take, with a number if it is one of `taken`."""
    name = name.encode()[-_LONGEST_NAME:].decode(errors="ignore")
    numbered = (f"{number}-{name}" for number in count(2))
    return next(free for free in chain([name], numbered) if free.lower() not in taken)


def _write(source: IO[bytes], target: Path, before: int, name: str, field: str) -> int:
    size = 0
    with disk_errors(target):
        file = target.open("wb")
    with file:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > MAX_FILE_BYTES:
                raise _refused(
                    name, f"holds {target.name}, of more than {MAX_FILE_BYTES >> 20} MiB", field
                )
            if before + size > MAX_TOTAL_BYTES:
                raise _refused(name, f"holds more than {MAX_TOTAL_BYTES >> 30} GiB", field)
            with disk_errors(target):
                file.write(chunk)
    return size


def _refused(name: str, what: str, field: str) -> UserError:
    return UserError(
        f"{name} {what}",
        field=field,
        remedy="Make an archive of nothing but the photos.",
        reason="ArchiveRefused",
    )


def _open(file: Path) -> "_Zip | _Tar":
    return _Zip(file) if zipfile.is_zipfile(file) else _Tar(file)


class _Zip:
    def __init__(self, file: Path) -> None:
        self._zip = zipfile.ZipFile(file)

    def __enter__(self) -> "_Zip":
        return self

    def __exit__(self, *exc: object) -> None:
        self._zip.close()

    def members(self) -> Iterable[_Member]:
        for info in self._zip.infolist():
            mode = info.external_attr >> 16
            special = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
            kind = "folder" if info.is_dir() else "special" if special else "file"
            yield _Member(info.filename, kind, 0, info)

    def open(self, member: _Member) -> IO[bytes]:
        assert isinstance(member.key, zipfile.ZipInfo)
        return self._zip.open(member.key)

    def finish(self) -> None:
        """Nothing: each entry's checksum is compared when its end is read."""


class _Tar:
    def __init__(self, file: Path) -> None:
        self._tar = tarfile.open(file, "r:*")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> "_Tar":
        return self

    def __exit__(self, *exc: object) -> None:
        self._tar.close()

    def members(self) -> Iterable[_Member]:
        for info in self._tar:
            kind = "folder" if info.isdir() else "file" if info.isreg() else "special"
            yield _Member(info.name, kind, info.size, info)

    def open(self, member: _Member) -> IO[bytes]:
        assert isinstance(member.key, tarfile.TarInfo)
        opened = self._tar.extractfile(member.key)
        assert opened is not None
        return opened

    def finish(self) -> None:
        """Reads to the end, where compressed files have their checksum."""
        rest = self._tar.fileobj
        assert rest is not None
        for _ in range(_MAX_REST):
            if not rest.read(_CHUNK):
                return
