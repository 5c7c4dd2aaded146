"""Copying the photos out of a folder of this machine."""

import os
import shutil
from pathlib import Path

from dreambooth.errors import InfrastructureError, UserError
from dreambooth.photos.limits import check_count, check_size, is_hidden
from dreambooth.workspace.atomic import disk_errors


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
    for file in files:
        check_inside(file, within, where=f"{where}/{file.name}", field=field)
        copy_file(file, destination / file.name, field=field)


def copy_file(file: Path, target: Path, *, field: str) -> None:
    """Copies one file; errors of reading are the user's, errors of writing the workspace's."""
    try:
        source = file.open("rb")
    except OSError as error:
        raise _unreadable(file.name, error, field) from error
    with source:
        check_size(file.name, os.fstat(source.fileno()).st_size, field=field)
        with disk_errors(target), target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 2**20)


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


def _unreadable(where: str, error: Exception, field: str) -> Exception:
    if isinstance(error, (FileNotFoundError, RuntimeError)):
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
