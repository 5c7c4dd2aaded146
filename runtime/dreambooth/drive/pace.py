"""When to tell the progress: at once if it matters, seldom else, patiently where it fails."""

import math

# Without news the record is told again after this many intervals: a sign of life.
HEARTBEAT_INTERVALS = 3
FIRST_RETRY_SECONDS = 1.0


class Pace:
    """A schedule; times are those of one clock, in seconds."""

    def __init__(self, interval: float, now: float) -> None:
        """The first time is now."""
        self._interval = interval
        self._due = now
        self._not_before = now
        self._told = -math.inf
        self._failures = 0

    @property
    def heartbeat(self) -> float:
        """Seconds after which it is told again without news."""
        return HEARTBEAT_INTERVALS * self._interval

    def news(self, now: float, *, urgent: bool) -> None:
        """Something happened."""
        self._due = min(self._due, now if urgent else max(now, self._told + self._interval))

    def told(self, now: float) -> None:
        """It was told."""
        self._told, self._failures = now, 0
        self._due, self._not_before = now + self.heartbeat, now

    def failed(self, now: float) -> None:
        """It could not be told; each time in a row waits twice as long, up to the heartbeat."""
        wait = min(self.heartbeat, FIRST_RETRY_SECONDS * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        self._due = self._not_before = now + wait

    def wait(self, now: float) -> float:
        """Seconds until it is to be told; 0 if it is time."""
        return max(0.0, max(self._due, self._not_before) - now)
