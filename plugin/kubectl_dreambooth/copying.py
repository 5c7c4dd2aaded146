"""Copies files of a job's folder: whole and right, or not at all, going on where it stopped.

The pod tells the digest of every file first. A file that is here with its digest is not fetched
again; one that comes is written beside its place, checked, and only then put there.
"""

import contextlib
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from kubectl_dreambooth.errors import PluginError
from kubectl_dreambooth.reader import WORKSPACE, Shell

# Connections through an API server break; each try fetches only what is still missing.
TRIES = 3
CHUNK = 1024 * 1024
# Digest, two spaces, name, NUL: nothing in a name can break it.
LIST = """
cd -- "$1" && shift
for part; do
  if [ -e "$part" ]; then find "$part" -type f -exec sha256sum -z {} + || exit 1; fi
done
"""


@dataclass(frozen=True)
class Copied:
    """What a copy has done: files by name, and how many were there before."""

    files: tuple[str, ...]
    kept: int


def copy_out(
    shell: Shell,
    folder: str,
    parts: Sequence[str],
    target: Path,
    on_file: Callable[[int, int], None] = lambda done, total: None,
) -> Copied:
    """Copies files and folders of the job's folder into `target`.

    Args:
        shell: Sees the workspace.
        folder: The job's folder on the workspace.
        parts: What to copy, relative to it; what is not there is left out.
        target: Made when missing.
        on_file: Called with (files here, files in all).

    Raises:
        PluginError: If something is missing or wrong after three tries, or cannot be written.
    """
    source = str(PurePosixPath(WORKSPACE) / _inside(folder))
    wanted = _listed(shell, source, [str(_inside(part)) for part in parts])
    if not wanted:
        raise PluginError(f"there is nothing to copy in {folder}", "Look at the job's status.")
    with _disk_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        missing = {name for name, digest in wanted.items() if _digest(target / name) != digest}
    kept = len(wanted) - len(missing)
    on_file(kept, len(wanted))
    problem: PluginError | None = None
    for _ in range(TRIES):
        if not missing:
            break
        try:
            _fetch(shell, source, wanted, missing, target, on_file)
        except PluginError as error:
            problem = error
    if missing:
        why = f" ({problem.what})" if problem else ""
        raise PluginError(
            f"{len(missing)} of {len(wanted)} files did not arrive whole{why}",
            "Run the same command again: it fetches only those.",
        )
    return Copied(tuple(sorted(wanted)), kept)


def _listed(shell: Shell, source: str, parts: Sequence[str]) -> dict[str, str]:
    """Digests of all files by name."""
    told = shell.run("sh", "-c", LIST, "sh", source, *parts).decode(errors="surrogateescape")
    listed = {}
    for entry in told.split("\0"):
        digest, _, name = entry.partition("  ")
        if name:
            listed[str(_inside(name))] = digest
    return listed


def _fetch(
    shell: Shell,
    source: str,
    wanted: dict[str, str],
    missing: set[str],
    target: Path,
    on_file: Callable[[int, int], None],
) -> None:
    """One stream of what is missing; what arrives whole is taken off `missing`."""
    names = b"".join(os.fsencode(name) + b"\0" for name in sorted(missing))
    command = ["tar", "-C", source, "--null", "--verbatim-files-from", "-T", "-", "-cf", "-"]
    with shell.stream(*command, stdin=names) as stream:
        try:
            with tarfile.open(fileobj=stream.output, mode="r|") as archive:
                for member in archive:
                    content = archive.extractfile(member) if member.isfile() else None
                    if content is None or member.name not in missing:
                        continue
                    with _disk_errors(target):
                        if _place(content, target / member.name, wanted[member.name]):
                            missing.discard(member.name)
                    on_file(len(wanted) - len(missing), len(wanted))
        except tarfile.TarError as error:
            raise PluginError(f"the stream broke off: {error}") from error
        stream.finish()


def _place(content: IO[bytes], final: Path, digest: str) -> bool:
    """Writes a file; whether it is what was announced."""
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".part-", dir=final.parent)
    try:
        found = hashlib.sha256()
        with os.fdopen(handle, "wb") as file:
            while chunk := content.read(CHUNK):
                found.update(chunk)
                file.write(chunk)
        if found.hexdigest() != digest:
            return False
        os.chmod(temporary, 0o644)
        os.replace(temporary, final)
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _digest(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def _inside(name: str) -> PurePosixPath:
    """`name`, if it cannot lead anywhere else.

    Raises:
        PluginError: If it can.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise PluginError(f"the job names a file outside its folder: {name}", "Report it.")
    return path


@contextlib.contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PluginError(
            f"{target} cannot be written ({error.strerror or error})",
            "Free some space or give another folder with --output.",
        ) from error
