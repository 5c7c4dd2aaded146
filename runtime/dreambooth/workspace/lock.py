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
import time
from collections.abc import Iterator
from pathlib import Path

from dreambooth.errors import InfrastructureError, UserError
from dreambooth.workspace.atomic import disk_errors


@contextlib.contextmanager
def exclusive(path: Path, *, what: str, patience: float = 0.0) -> Iterator[None]:
    """Holds the lock file `path` while the body runs.

    Args:
        path: The lock file; made when missing.
        what: What is locked, for the message, e.g. `job rex`.
        patience: Seconds to wait for whoever holds it. A file server may need a minute or two to
            notice that a machine is gone.

    Raises:
        UserError: If another live process holds it; the message says which.
        InfrastructureError: If one still does after waiting.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(handle, path, what, patience)
        owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
        with disk_errors(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, owner, 0)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, path: Path, what: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    try:
        while not _try(handle):
            if time.monotonic() >= deadline:
                raise _in_use(handle, path, what, waited=patience)
            time.sleep(min(1.0, patience))
    except OSError as error:
        # Some network file systems have no flock; the pipeline's writes are safe for two
        # writers, the lock only saves the double work.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_use(
    handle: int, path: Path, what: str, *, waited: float
) -> UserError | InfrastructureError:
    message = f"{what} is being run by another process ({_owner(handle)})"
    if waited:
        return InfrastructureError(
            f"{message}, for {waited:.0f} seconds now",
            field=str(path.parent),
            remedy="Try again once that process or its machine is gone.",
            reason="WorkspaceInUse",
        )
    return UserError(
        message,
        field=str(path.parent),
        remedy="Wait for it to end, stop it, or give another --workspace.",
        reason="WorkspaceInUse",
    )


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
