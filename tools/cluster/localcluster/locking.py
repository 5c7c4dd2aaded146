"""One run of the tool at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from localcluster.console import say
from localcluster.layout import STATE


@contextmanager
def exclusive() -> Iterator[None]:
    """Keep two runs of this tool from working on the cluster at once."""
    STATE.parent.mkdir(parents=True, exist_ok=True)
    with (STATE.parent / "cluster.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run of this tool to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
