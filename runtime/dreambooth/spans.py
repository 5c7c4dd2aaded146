"""What a process of a job did, and when: recorded in memory, sent home when there is a moment.

A span costs two looks at the clock and an entry in a list. It stands around what takes a tenth of
a second or more, never around a single training step: spans of one activity that follow each other
closely become one, so that a process remembers a bounded number of them.

    with span(Activity.MODEL_LOAD):
        ...

A process that works for the driver calls itself something (`call_this_process`), and gives what it
recorded (`take`) to whatever it sends home anyway. The driver's end passes it on (`deliver`).
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dreambooth import LOADED_AT

# Spans of one activity with less than this between them are one.
JOIN_SECONDS = 0.5
# Spans that a process remembers between two looks; further ones extend the last of their kind.
MAX_SPANS = 200


class Kind(StrEnum):
    """What a process is busy with, in the large."""

    START_UP = "startUp"
    WORK = "work"
    KEEPING = "keeping"


class Activity(StrEnum):
    """What a span is about, in the words of the report."""

    COMMAND_START = "command start"
    RAY_START = "Ray start"
    RAY_STOP = "Ray stop"
    TRAIN_START = "Ray Train start"
    TRAIN_STOP = "Ray Train stop"
    PROCESS_START = "process start"
    IMPORTS = "imports"
    DEVICE_START = "CUDA context"
    MODEL_LOAD = "model load"
    ENCODER_LOAD = "image encoder load"
    MODEL_RESOLVE = "model look-up"
    COMPILE = "compile"
    FIRST_RUN = "first run"
    CAPTURE = "graph capture"
    PHOTOS = "photos"
    DRAW = "draw"
    ENCODE_LATENTS = "encode latents"
    TRAINING_STEPS = "training steps"
    MEASURE = "measure"
    WRITE_PICTURES = "write pictures"
    CHECKPOINT = "checkpoint"
    SAVE_MODEL = "save model"
    DIGEST = "digest"
    REPORT = "report"

    @property
    def kind(self) -> Kind:
        """What it counts as."""
        if self in _WORK:
            return Kind.WORK
        return Kind.KEEPING if self in _KEEPING else Kind.START_UP


_WORK = {
    Activity.PHOTOS,
    Activity.DRAW,
    Activity.ENCODE_LATENTS,
    Activity.TRAINING_STEPS,
    Activity.MEASURE,
}
_KEEPING = {
    Activity.WRITE_PICTURES,
    Activity.CHECKPOINT,
    Activity.SAVE_MODEL,
    Activity.DIGEST,
    Activity.REPORT,
}


@dataclass
class Span:
    """One activity from `start` to `end`, by the system's clock.

    Attributes:
        seconds: Time in it: less than between its ends where several were joined.
        count: How many were joined.
    """

    activity: str
    start: float
    end: float
    seconds: float
    count: int = 1


@dataclass
class Lane:
    """What one process recorded.

    Attributes:
        process: What it is: `driver`, `drawing`, `training worker 0`.
        number: Tells processes of one name apart, such as its id; 0 where there is one only.
        device: What it computes on: `cpu` or `cuda`.
    """

    process: str
    number: int
    device: str
    spans: list[Span]

    def to_json(self) -> dict[str, Any]:
        """JSON-able; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Lane":
        """What `to_json` gave."""
        return cls(**{**value, "spans": [Span(**span) for span in value["spans"]]})

    def add(self, span: Span) -> None:
        """Takes in a span, joined to the last of its activity where that is near or room is out."""
        last = next((s for s in reversed(self.spans) if s.activity == span.activity), None)
        full = len(self.spans) >= MAX_SPANS
        if last is not None and (full or _follows(last, span, self.spans)):
            last.start, last.end = min(last.start, span.start), max(last.end, span.end)
            last.seconds += span.seconds
            last.count += span.count
        elif not full:
            self.spans.append(span)


def _follows(last: Span, span: Span, spans: list[Span]) -> bool:
    """Whether `span` goes on with `last`, and nothing else happened meanwhile."""
    return spans[-1] is last and abs(span.start - last.end) < JOIN_SECONDS


class Recorder:
    """The lanes that a process knows: its own, and those that others gave it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._named = False
        self._own = Lane("driver", 0, "cpu", [])
        self._others: dict[tuple[str, int], Lane] = {}

    def call(self, process: str, number: int = 0, device: str = "cpu") -> None:
        """Says what this process is, the first time; parts that share one process keep its name."""
        with self._lock:
            if self._named:
                return
            self._named = True
            self._own = Lane(process, number, device, self._own.spans)

    def note(self, activity: Activity, start: float, end: float) -> None:
        """Records what began and ended at these times of the system's clock."""
        seconds = max(0.0, end - start)
        with self._lock:
            self._own.add(Span(activity.value, start, start + seconds, seconds))

    def deliver(self, lanes: list[dict[str, Any]]) -> None:
        """Takes in what other processes recorded."""
        with self._lock:
            for value in lanes:
                lane = Lane.from_json(value)
                known = self._others.setdefault(
                    (lane.process, lane.number), Lane(lane.process, lane.number, lane.device, [])
                )
                for each in lane.spans:
                    known.add(each)

    def take(self) -> list[dict[str, Any]]:
        """All lanes with something in them; they are empty afterwards."""
        with self._lock:
            lanes = [lane.to_json() for lane in (self._own, *self._others.values()) if lane.spans]
            self._own = Lane(self._own.process, self._own.number, self._own.device, [])
            self._others = {}
        return lanes


_recorder = Recorder()
call_this_process = _recorder.call
note = _recorder.note
deliver = _recorder.deliver
take = _recorder.take


@contextlib.contextmanager
def span(activity: Activity) -> Iterator[None]:
    """Records the body, also one that fails."""
    start, began = time.time(), time.monotonic()
    try:
        yield
    finally:
        note(activity, start, start + time.monotonic() - began)


def arrived(asked: float | None) -> None:
    """Records how this process came about that the driver asked for at `asked`.

    It is called when everything has been imported. A process that was there already, because it
    had worked before, has taken no time to start.
    """
    if asked is None:
        return
    loaded = max(asked, LOADED_AT)
    note(Activity.PROCESS_START, asked, loaded)
    note(Activity.IMPORTS, loaded, time.time())


def process_age() -> float:
    """Seconds since this process was started; 0 where the kernel doesn't say."""
    try:
        # The second field, a name in brackets, may hold spaces; the start is the 22nd.
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def note_command_start() -> None:
    """Records what came before the work: starting Python, importing, reading the manifest."""
    now = time.time()
    note(Activity.COMMAND_START, now - process_age(), now)
