"""Tells the operator how far the job is, in the background, and never in the job's way."""

import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Protocol

from dreambooth.drive.pace import Pace
from dreambooth.drive.record import URGENT, ProgressRecord
from dreambooth.drive.work import WorkPlan
from dreambooth.errors import DreamBoothError
from dreambooth.pipeline.progress import Event, EventKind

# How long the last record may take; and when the pod is being stopped, which has little time.
LAST_WORD_SECONDS = 60.0
HURRY_SECONDS = 2.0
RETRY_SECONDS = 1.0


class Target(Protocol):
    """Where the record goes."""

    def patch(self, text: str, timeout: float = ...) -> None:
        """Puts the record there; a `DreamBoothError` says that it could not."""


class _Word(Enum):
    CLOSE = auto()
    INTERRUPTED = auto()


class ProgressPatcher:
    """A listener of the pipeline. The record lives in its thread; nothing else touches it."""

    def __init__(
        self,
        record: ProgressRecord,
        target: Target,
        interval: float,
        complain: Callable[[str], None],
    ) -> None:
        """Starts telling; `complain` is told, once an outage, that nobody listens."""
        self._record, self._target, self._complain = record, target, complain
        self._pace = Pace(interval, time.monotonic())
        # Of this kind of queue `put` may be called from a signal handler.
        self._news: queue.SimpleQueue[Event | WorkPlan | _Word] = queue.SimpleQueue()
        self._outage = False
        self._hurry = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Takes an event; returns at once."""
        self._news.put(event)

    def plans(self, plan: WorkPlan) -> None:
        """Takes what there is to do; returns at once."""
        self._news.put(plan)

    def interrupted(self) -> None:
        """Tells that the job is being stopped, before it has unwound; for signal handlers."""
        self._hurry = True
        self._news.put(_Word.INTERRUPTED)

    def close(self) -> None:
        """Delivers the last record, for a minute at most, and stops."""
        self._news.put(_Word.CLOSE)
        self._thread.join(LAST_WORD_SECONDS + HURRY_SECONDS)

    def _run(self) -> None:
        while True:
            try:
                news = self._news.get(timeout=self._pace.wait(time.monotonic()))
            except queue.Empty:
                self._tell()
                continue
            if news is _Word.CLOSE:
                self._last_word()
                return
            self._take(news)

    def _take(self, news: Event | WorkPlan | _Word) -> None:
        now = time.monotonic()
        if isinstance(news, WorkPlan):
            self._record.plans(news)
        elif isinstance(news, Event):
            self._record.note(news, datetime.now(UTC))
            urgent = news.kind in URGENT or news.resumed_from is not None
            self._pace.news(now, urgent=urgent)
        else:
            stopped = Event(EventKind.JOB_FAILED, data={"state": "Interrupted"})
            self._record.note(stopped, datetime.now(UTC))
            self._pace.news(now, urgent=True)

    def _tell(self, timeout: float | None = None) -> bool:
        """Patches once; whether it worked."""
        text = self._record.encode(datetime.now(UTC))
        try:
            if timeout is None:
                self._target.patch(text)
            else:
                self._target.patch(text, timeout=timeout)
        except DreamBoothError as error:
            self._pace.failed(time.monotonic())
            if not self._outage:
                self._outage = True
                self._complain(f"The progress cannot be told ({error.message}); the job goes on.")
            return False
        self._pace.told(time.monotonic())
        if self._outage:
            self._outage = False
            self._complain("The progress can be told again.")
        return True

    def _last_word(self) -> None:
        patience = HURRY_SECONDS if self._hurry else LAST_WORD_SECONDS
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            if self._tell(timeout=min(left, 10.0)):
                return
            time.sleep(min(RETRY_SECONDS, max(0.0, deadline - time.monotonic())))
