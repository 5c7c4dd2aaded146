"""The one error a user of the tool sees, with the log lines that explain it."""

from pathlib import Path


class ClusterError(Exception):
    """A step failed; the message says which, why, and what to look at."""


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log, or a note that there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"({path}: no such log)"
    last = text.splitlines()[-lines:]
    return "\n".join([f"--- last lines of {path}", *last])
