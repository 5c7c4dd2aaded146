"""What jobs share on a workspace: base models, encoders, class pictures, compiled code.

Everything here is made again when it is needed; pruning costs time, never results.
"""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreambooth.workspace.atomic import TEMPORARY_PREFIX, read_json, remove_tree
from dreambooth.workspace.layout import JobFolder, Workspace
from dreambooth.workspace.lock import is_locked

MODEL, ENCODER, PICTURES, COMPILED = "model", "encoder", "class pictures", "compiled code"
# Folders of the models' cache that hold entries themselves.
_ENCODERS, _HUB = "encoders", "hub"


@dataclass(frozen=True)
class Entry:
    """One thing that can be removed.

    Attributes:
        path: Its folder.
        kind: `MODEL`, `ENCODER`, `PICTURES` or `COMPILED`.
        name: What it is, for people.
        size: Bytes on the disk.
        used: When it was last written, or read by a stage of a job; seconds since the epoch.
        jobs: Names of the jobs that used it.
        running: Name of a running job that may need it; None if it can go.
    """

    path: Path
    kind: str
    name: str
    size: int
    used: float
    jobs: tuple[str, ...]
    running: str | None

    def age(self, now: float) -> float:
        """Seconds since it was last used."""
        return max(0.0, now - self.used)

    def to_json(self, workspace: Path) -> dict[str, Any]:
        """For programs."""
        return {
            "path": str(self.path.relative_to(workspace)),
            "kind": self.kind,
            "name": self.name,
            "bytes": self.size,
            "lastUsed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.used)),
            "jobs": list(self.jobs),
            "neededBy": self.running,
        }


def entries(workspace: Workspace) -> list[Entry]:
    """All entries, the largest first."""
    jobs = _jobs(workspace)
    found = []
    for path, kind in _places(workspace):
        manifest = read_json(path / "manifest.json") or {}
        users = [job for job in jobs if job.names(path)]
        sizes, times = _measure(path)
        found.append(
            Entry(
                path=path,
                kind=kind,
                name=_name(path, kind, manifest),
                size=sizes,
                used=max([times, *(job.last_read for job in users)]),
                jobs=tuple(job.name for job in users),
                running=next((job.name for job in jobs if job.needs(path, kind, manifest)), None),
            )
        )
    return sorted(found, key=lambda entry: (-entry.size, entry.name))


def prune(workspace: Workspace, chosen: Iterable[Entry]) -> list[Entry]:
    """Removes `chosen`, except what a job that has started since may need.

    Returns:
        The entries that are gone.

    Raises:
        InfrastructureError: If the disk refuses.
    """
    gone = []
    for entry in chosen:
        manifest = read_json(entry.path / "manifest.json") or {}
        jobs = _jobs(workspace)
        if any(job.needs(entry.path, entry.kind, manifest) for job in jobs):
            continue
        remove_tree(entry.path)
        gone.append(entry)
    return gone


class _JobUse:
    """What one job has used of the cache, and may still need."""

    def __init__(self, folder: JobFolder, workspace: Workspace) -> None:
        self.name = folder.root.name
        self._root = workspace.root
        self._running = is_locked(folder.lock)
        records = sorted(folder.stages.glob("*.json")) if folder.stages.is_dir() else []
        self.last_read = max((_modified(file) for file in records), default=0.0)
        self._named = set(_texts([read_json(file) for file in records]))
        self._model = self._model_digest(folder)

    def names(self, path: Path) -> bool:
        """Whether its records name the entry or a file in it."""
        relative = path.relative_to(self._root).as_posix()
        return any(text == relative or text.startswith(f"{relative}/") for text in self._named)

    def needs(self, path: Path, kind: str, manifest: dict[str, Any]) -> bool:
        """Whether it is running and may read the entry.

        It may read class pictures of its own model (of any, until that is known) and all that is
        not class pictures.
        """
        if not self._running:
            return False
        if kind != PICTURES or self.names(path) or self._model is None:
            return True
        made_with = manifest.get("madeFrom", {}).get("model")
        return made_with is None or made_with == self._model

    def _model_digest(self, folder: JobFolder) -> str | None:
        """Of the run that is going on; None as long as that has not said."""
        if not folder.progress.is_file() or _modified(folder.progress) < _modified(folder.lock):
            return None
        resolved = (read_json(folder.progress) or {}).get("resolved") or {}
        digest = resolved.get("modelDigest")
        return digest if isinstance(digest, str) else None


def _jobs(workspace: Workspace) -> list[_JobUse]:
    if not workspace.jobs.is_dir():
        return []
    folders = sorted(path for path in workspace.jobs.iterdir() if path.is_dir())
    return [_JobUse(JobFolder(path), workspace) for path in folders]


def _places(workspace: Workspace) -> Iterator[tuple[Path, str]]:
    for path in _folders(workspace.models):
        if path.name == _ENCODERS:
            yield from ((inner, ENCODER) for inner in _folders(path))
        elif path.name == _HUB:
            yield from ((inner, MODEL) for inner in _folders(path))
        else:
            yield path, MODEL
    yield from ((path, PICTURES) for path in _folders(workspace.pictures))
    yield from ((path, COMPILED) for path in _folders(workspace.compile))


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(
        path
        for path in parent.iterdir()
        if path.is_dir() and not path.name.startswith((".", TEMPORARY_PREFIX))
    )


def _name(path: Path, kind: str, manifest: dict[str, Any]) -> str:
    if kind == PICTURES:
        count = sum(1 for _ in path.glob("*.png"))
        return f"{count} × {manifest.get('prompt', path.name[:12])}"
    return path.name.removeprefix("models--").replace("--", "/")


def _measure(folder: Path) -> tuple[int, float]:
    """Bytes, each file once however many links it has, and the newest time in the folder."""
    seen: dict[tuple[int, int], int] = {}
    newest = _modified(folder)
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(parent, name))
            except FileNotFoundError:
                continue
            seen[status.st_dev, status.st_ino] = status.st_size
            newest = max(newest, status.st_mtime)
    return sum(seen.values()), newest


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
