"""Copying the photos out of a folder of this machine."""

import errno
import stat
from collections.abc import Iterator
from pathlib import Path

from dreambooth.errors import InfrastructureError, UserError
from dreambooth.photos.limits import check_count, check_sizes, is_hidden
from dreambooth.workspace.atomic import disk_errors

_CHUNK = 2**20


def copy_folder(folder: Path, destination: Path, *, within: Path, where: str, field: str) -> None:
    """Copies the visible files directly in `folder`.

    Args:
        folder: Exists.
        destination: Exists and is empty.
        within: Links may lead anywhere in here, and not out of it.
        where: `folder` as the user knows it.
        field: Of the manifest.

    Raises:
        UserError: If there are none or too many, or one leads out or cannot be read.
    """
    try:
        files = sorted(
            entry for entry in folder.iterdir() if not is_hidden(entry.name) and not entry.is_dir()
        )
    except OSError as error:
        raise _unreadable(where, error, field) from error
    check_count([file.name for file in files], where=where, field=field)
    sizes = {}
    for file in files:
        check_inside(file, within, where=f"{where}/{file.name}", field=field)
        sizes[file.name] = _size(file, f"{where}/{file.name}", field)
    check_sizes(sizes, where=where, field=field)
    for file in files:
        copy_file(file, destination / file.name, field=field)


def copy_file(file: Path, target: Path, *, field: str) -> None:
    """Copies one file; errors of reading are the user's, errors of writing the workspace's."""
    check_sizes({file.name: _size(file, file.name, field)}, where=str(file.parent), field=field)
    with disk_errors(target):
        copy = target.open("wb")
    with copy:
        for chunk in _chunks(file, field):
            with disk_errors(target):
                copy.write(chunk)


def there_is(path: Path, *, where: str, field: str) -> bool:
    """Whether there is anything at `path`, a link that leads nowhere included.

    Raises:
        UserError: If that cannot be told.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise _unreadable(where, error, field) from error
    return True


def check_inside(path: Path, root: Path, *, where: str, field: str) -> Path:
    """`path` with its links followed.

    Raises:
        UserError: If that is not in `root`.
    """
    try:
        real = path.resolve(strict=True)
        inside = real.is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:
        raise _unreadable(where, error, field) from error
    if not inside:
        raise UserError(
            f"{where} is a link that leads out of the folder it may use",
            field=field,
            remedy="Copy the photos there instead of linking to them.",
            reason="PathEscapes",
        )
    return real


def _size(file: Path, where: str, field: str) -> int:
    """Of a plain file: reading anything else, such as a pipe, may never end."""
    try:
        status = file.stat()
    except OSError as error:
        raise _unreadable(where, error, field) from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(
            f"{where} is no plain file",
            field=field,
            remedy="Give photos, or a folder with nothing but photos in it.",
            reason="PhotoNotReadable",
        )
    return status.st_size


def _chunks(file: Path, field: str) -> Iterator[bytes]:
    try:
        with file.open("rb") as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise _unreadable(file.name, error, field) from error


def _unreadable(where: str, error: Exception, field: str) -> Exception:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENAMETOOLONG or isinstance(error, ValueError):
        return UserError(
            f"{where} is no path that a file can have",
            field=field,
            remedy="Correct the path.",
            reason="PhotosNotFound",
        )
    # Links in a circle are a RuntimeError or, in newer Pythons, ELOOP.
    if isinstance(error, (FileNotFoundError, RuntimeError)) or number == errno.ELOOP:
        return UserError(
            f"{where} is a link that leads nowhere",
            field=field,
            remedy="Replace it by the photo itself, or remove it.",
            reason="PhotoNotReadable",
        )
    if isinstance(error, PermissionError):
        return UserError(
            f"{where} cannot be read: permission denied",
            field=field,
            remedy="Give the user that runs the job permission to read it.",
            reason="PhotoNotReadable",
        )
    return InfrastructureError(
        f"{where} cannot be read: {error}",
        field=field,
        remedy="Check the disk it is on and run again.",
        reason="PhotoNotReadable",
    )
