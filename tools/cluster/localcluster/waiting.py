"""Waiting on conditions, always with a deadline, and explaining when one passes."""

import time
from collections.abc import Callable
from pathlib import Path

from localcluster.errors import ClusterError, tail


def wait_until(
    what: str,
    condition: Callable[[], bool],
    seconds: float,
    *,
    log: Path | None = None,
    alive: Callable[[], bool] | None = None,
    explain: Callable[[], str] | None = None,
    interval: float = 0.2,
) -> None:
    """Return once the condition holds.

    Args:
        what: the awaited state, as it completes "waited for".
        condition: asked again and again.
        seconds: the deadline.
        log: the log that says why it did not come.
        alive: whether waiting still makes sense; the process that should bring it about.
        explain: more to print on failure, for example recent events.
        interval: seconds between two questions.

    Raises:
        ClusterError: the deadline passed, or the process ended.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        ended = alive is not None and not alive()
        if ended or time.monotonic() > deadline:
            why = "its process ended" if ended else f"not within {seconds:.0f} s"
            details = [f"waited for {what}: {why}"]
            if explain is not None:
                details.append(explain())
            if log is not None:
                details.append(tail(log))
            raise ClusterError("\n".join(details))
        time.sleep(interval)
