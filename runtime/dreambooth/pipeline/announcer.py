"""Turns what stages report into events, with rate and time to go."""

import time
from collections.abc import Callable, Sequence

from dreambooth.pipeline.progress import Event, EventKind, Listener, StageName

# Weight of the newest interval in the smoothed rate.
SMOOTHING = 0.3
# Reports closer together than this are of one batch: pictures are computed eight at a time and
# then reported one by one.
BURST_SECONDS = 0.25


class StageAnnouncer:
    """The `ProgressReport` of one stage."""

    def __init__(
        self,
        stage: StageName,
        listeners: Sequence[Listener],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stage = stage
        self._listeners = listeners
        self._rate = _Rate(clock)

    def __call__(
        self,
        done: int,
        total: int,
        unit: str,
        *,
        step: int | None = None,
        loss: float | None = None,
        resumed: int | None = None,
        message: str | None = None,
    ) -> None:
        """Passes the progress on to all listeners."""
        rate = self._rate.after(done)
        eta = (total - done) / rate if rate else None
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
                resumed_from=resumed,
                rate=rate,
                eta_seconds=eta,
                message=message,
            ),
        )


class _Rate:
    """Items a second, from the times at which batches were complete.

    Known once two batches are: what is before the first is loading, not work.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._smoothed: float | None = None
        # Time and count of the last report that brought something, and of the last whole batch.
        self._latest: tuple[float, int] | None = None
        self._batch: tuple[float, int] | None = None

    def after(self, done: int) -> float | None:
        """The rate, now that `done` items are finished; None as long as nothing is known."""
        now = self._clock()
        if self._latest is not None and done < self._latest[1]:
            # Lost work: what follows is measured anew.
            self._latest = self._batch = None
        elif self._latest is not None and done > self._latest[1]:
            if now - self._latest[0] >= BURST_SECONDS:
                self._close_batch()
            self._latest = (now, done)
        elif self._latest is None:
            self._latest = (now, done)
        return self._smoothed

    def _close_batch(self) -> None:
        """Takes the latest report for the end of a batch."""
        if self._latest is None or self._latest[1] == 0:
            return
        if self._batch is not None:
            seconds, items = (new - old for new, old in zip(self._latest, self._batch, strict=True))
            rate = items / seconds
            self._smoothed = (
                rate
                if self._smoothed is None
                else SMOOTHING * rate + (1 - SMOOTHING) * self._smoothed
            )
        self._batch = self._latest


def announce(listeners: Sequence[Listener], event: Event) -> None:
    """Gives `event` to every listener."""
    for listener in listeners:
        listener(event)
