"""Turns what stages report into events, with rate and time to go."""

import time
from collections.abc import Sequence

from dreambooth.pipeline.progress import Event, EventKind, Listener, StageName

# Weight of the newest interval in the smoothed rate.
SMOOTHING = 0.3


class StageAnnouncer:
    """The `ProgressReport` of one stage."""

    def __init__(self, stage: StageName, listeners: Sequence[Listener]) -> None:
        self._stage = stage
        self._listeners = listeners
        self._rate: float | None = None
        self._last: tuple[float, int] | None = None

    def __call__(
        self,
        done: int,
        total: int,
        unit: str,
        *,
        step: int | None = None,
        loss: float | None = None,
        message: str | None = None,
    ) -> None:
        """Passes the progress on to all listeners."""
        self._measure(done)
        eta = (total - done) / self._rate if self._rate else None
        announce(
            self._listeners,
            Event(
                EventKind.STAGE_PROGRESS,
                stage=self._stage,
                done=done,
                total=total,
                unit=unit,
                step=step,
                loss=loss,
                rate=self._rate,
                eta_seconds=eta,
                message=message,
            ),
        )

    def _measure(self, done: int) -> None:
        now = time.monotonic()
        if self._last is not None and done > self._last[1] and now > self._last[0]:
            rate = (done - self._last[1]) / (now - self._last[0])
            self._rate = rate if self._rate is None else (
                SMOOTHING * rate + (1 - SMOOTHING) * self._rate
            )  # fmt: skip
        if self._last is None or done != self._last[1]:
            self._last = (now, done)


def announce(listeners: Sequence[Listener], event: Event) -> None:
    """Gives `event` to every listener."""
    for listener in listeners:
        listener(event)
