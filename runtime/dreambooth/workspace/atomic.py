"""Writes that are either whole or absent.

Everything that lands on the workspace goes through here: a temporary name in the same folder,
fsync, rename, fsync of the folder. A reader, or a run that comes after a power cut, never sees
half a file.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreambooth.errors import InfrastructureError

TEMPORARY_PREFIX = ".tmp-"
_TEMPORARY = re.compile(re.escape(TEMPORARY_PREFIX) + "[0-9a-f]{12}-")

_REMEDIES = {
    errno.ENOSPC: ("there is no space left on the device", "Free some space and run again."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space or raise the quota."),
    errno.EFBIG: (
        "the file would be larger than allowed",
        "Raise the limit on file sizes (ulimit -f), or give a workspace on another file system.",
    ),
    errno.ENOTDIR: ("a part of the path is no folder", "Give another workspace."),
    errno.ENAMETOOLONG: ("the path is too long", "Give a workspace with a shorter path."),
    errno.EROFS: ("the file system is read-only", "Give a workspace that can be written."),
    errno.EACCES: ("permission denied", "Give a workspace that this user can write."),
    errno.EPERM: ("operation not permitted", "Give a workspace that this user can write."),
}


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals into errors that name `path` and the remedy.

    Raises:
        InfrastructureError: On a full or read-only disk, a quota, missing permission, or any
            other input/output error.
    """
    try:
        yield
    except OSError as error:
        known = _REMEDIES.get(error.errno or 0)
        what, remedy = known or (
            error.strerror or str(error),
            "Check the workspace's disk and run again.",
        )
        # The name that the user knows: what stands on the disk meanwhile is nobody's business.
        name = _TEMPORARY.sub("", str(path))
        raise InfrastructureError(
            f"cannot write: {what}", field=name, remedy=remedy, reason="WorkspaceNotWritable"
        ) from error


def temporary_sibling(path: Path) -> Path:
    """A fresh name beside `path`, on the same file system, that clean-up recognises."""
    return path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}")


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path` so that either all of it is there or the old content still is.

    Raises:
        InfrastructureError: If the disk refuses; nothing is left behind.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_sibling(path)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of JSON with sorted keys, so that equal content means equal files."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any | None:
    """The JSON value at `path`; None if there is no such file or it is torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def settle(folder: Path) -> None:
    """Brings all of a folder to the disk.

    Raises:
        InfrastructureError: If the disk refuses.
    """
    with disk_errors(folder):
        for root, _, files in os.walk(folder):
            for name in files:
                _fsync_file(Path(root) / name)
            _fsync_folder(Path(root))


def publish_dir(temporary: Path, final: Path) -> None:
    """Makes the finished folder `temporary` visible as `final`, replacing an older one.

    Raises:
        InfrastructureError: If the disk refuses.
    """
    with disk_errors(final):
        settle(temporary)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            # A folder cannot be replaced in one step: between the two renames `final` is absent,
            # never mixed, and a run that finds it absent makes it again.
            remove_tree(final)
        os.rename(temporary, final)
        _fsync_folder(final.parent)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` the file `source` by a hard link, or by a copy where there can be none."""
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without links.
        shutil.copyfile(source, target)


def publish_dir_once(temporary: Path, final: Path) -> bool:
    """Makes the folder `temporary` visible as `final` unless somebody else was first.

    For folders of equal content that others may be reading: `final` is never absent again.

    Returns:
        Whether this call published it. The temporary folder is gone either way.

    Raises:
        InfrastructureError: If the disk refuses.
    """
    with disk_errors(final):
        settle(temporary)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(temporary, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(temporary)
            return False
        _fsync_folder(final.parent)
        return True


def remove_tree(path: Path) -> None:
    """Removes a folder so that nobody sees it half removed: renamed away first."""
    with disk_errors(path):
        if not path.exists():
            return
        doomed = temporary_sibling(path)
        os.rename(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def sweep_temporaries(folder: Path, *, older_than: float = 0.0) -> None:
    """Removes what interrupted writes left directly inside `folder`.

    Args:
        folder: It need not exist.
        older_than: Seconds; younger ones are left alone. For folders that others may be writing to.
    """
    if not folder.is_dir():
        return
    now = time.time()
    for entry in folder.iterdir():
        if not entry.name.startswith(TEMPORARY_PREFIX) or _age(entry, now) < older_than:
            continue
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _age(path: Path, now: float) -> float:
    """Seconds since the last change; none for what has just gone."""
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _fsync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
