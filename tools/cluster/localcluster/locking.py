"""One run at a time of what two runs of the tool would do to the same files."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster.console import say
from localcluster.layout import CACHE, STATE

CLUSTER = STATE.parent / "cluster.lock"
BINARIES = CACHE / "binaries.lock"


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Keep two runs of this tool from working on the same thing at once."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run of this tool to end (it holds {lock})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
