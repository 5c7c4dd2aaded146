"""One run at a time on one job.

The lock is advisory (flock) where the file system has it, and in any case a file that says who
holds it. The kernel drops it with the process, however that dies.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from dreambooth.errors import UserError
from dreambooth.workspace.atomic import disk_errors


@contextlib.contextmanager
def exclusive(path: Path, *, what: str) -> Iterator[None]:
    """Holds the lock file `path` while the body runs.

    Args:
        path: The lock file; made when missing.
        what: What is locked, for the message, e.g. `job rex`.

    Raises:
        UserError: If another live process holds it; the message says which.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(handle, path, what)
        owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
        with disk_errors(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, owner, 0)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, path: Path, what: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"{what} is being run by another process ({_owner(handle)})",
            field=str(path.parent),
            remedy="Wait for it to end, stop it, or give another --workspace.",
            reason="WorkspaceInUse",
        ) from error
    except OSError as error:
        # Some network file systems have no flock; the pipeline's writes are safe for two
        # writers, the lock only saves the double work.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise


def _owner(handle: int) -> str:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "its owner is unknown"


def is_locked(path: Path) -> bool:
    """Whether a live process holds the lock file `path`."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
