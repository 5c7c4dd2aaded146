"""Control groups: what holds every process of a machine, so that stopping it misses none."""

import os
import signal
import time
from functools import cache
from pathlib import Path

from localcluster.console import say
from localcluster.errors import ClusterError

ROOT = Path("/sys/fs/cgroup")
NAME = "dreambooth-cluster"


@cache
def _unified() -> bool:
    return (ROOT / "cgroup.controllers").exists()


@cache
def _hierarchies() -> tuple[Path, ...]:
    """Return the mount point of each hierarchy (version 1), or the only one (version 2)."""
    if _unified():
        return (ROOT,)
    found = sorted(
        path
        for path in ROOT.iterdir()
        if path.is_dir() and not path.is_symlink() and (path / "cgroup.procs").exists()
    )
    if not found:
        raise ClusterError(f"no control groups are mounted at {ROOT}")
    return tuple(found)


def kubelet_root(machine: str) -> str:
    """Return the parent of the pods' groups, as the kubelet wants it."""
    return f"/{NAME}/{machine}"


def exist(machine: str) -> bool:
    """Tell whether a machine has its groups."""
    return all((top / NAME / machine / "daemons").is_dir() for top in _hierarchies())


def ensure(machine: str) -> None:
    """Make a machine's groups in every hierarchy."""
    for hierarchy in _hierarchies():
        folder = hierarchy
        for part in (NAME, machine, "daemons"):
            if _unified():
                # Controllers are handed down level by level.
                available = (folder / "cgroup.controllers").read_text().split()
                (folder / "cgroup.subtree_control").write_text(
                    " ".join(f"+{controller}" for controller in available)
                )
            parent, folder = folder, folder / part
            folder.mkdir(exist_ok=True)
            # A new version-1 cpuset is empty, and no process can join an empty one.
            for setting in ("cpuset.cpus", "cpuset.mems"):
                file = folder / setting
                if not _unified() and file.exists() and not file.read_text().strip():
                    file.write_text((parent / setting).read_text())


def join(machine: str) -> None:
    """Move the calling process into a machine's group."""
    for hierarchy in _hierarchies():
        (hierarchy / NAME / machine / "daemons" / "cgroup.procs").write_text("0")


def processes(machine: str | None = None) -> set[int]:
    """Return the processes of a machine (its pods' too), or of all machines."""
    found: set[int] = set()
    for hierarchy in _hierarchies():
        top = hierarchy / NAME / (machine or "")
        for file in top.rglob("cgroup.procs"):
            try:
                found.update(int(word) for word in file.read_text().split())
            except OSError:
                continue  # the group was removed meanwhile
    return found


def kill(machine: str | None = None, seconds: float = 30) -> None:
    """End every process of a machine, or of all, as a power failure would.

    Raises:
        ClusterError: some would not die.
    """
    deadline = time.monotonic() + seconds
    killed: set[int] = set()
    # A dead process leaves its group before its parent, or init, has collected it.
    while left := processes(machine) | {pid for pid in killed if Path(f"/proc/{pid}").exists()}:
        for pid in left - killed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        killed |= left
        _reap()
        if time.monotonic() > deadline:
            raise ClusterError(f"processes that do not end: {sorted(left)}")
        time.sleep(0.1)


def _reap() -> None:
    """Collect our own dead children: a zombie stays in its group."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def remove() -> None:
    """Remove all groups; they are empty by now."""
    for hierarchy in _hierarchies():
        top = hierarchy / NAME
        if not top.is_dir():
            continue
        for folder in [*sorted((p for p in top.rglob("*") if p.is_dir()), reverse=True), top]:
            try:
                folder.rmdir()
            except OSError as error:
                say(f"could not remove {folder}: {error.strerror}")
