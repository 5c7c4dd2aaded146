"""What the pipeline tells the outside while it runs.

Stages speak to a `Reporter`; the driver passes every `Event` to listeners (the terminal, the
`--json` writer, the progress record on the workspace, the ConfigMap patcher on a cluster).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class StageName(StrEnum):
    """The five stages, in the order they run."""

    PHOTOS = "photos"
    CLASS_IMAGES = "classImages"
    TRAIN = "train"
    GENERATE = "generate"
    EVALUATE = "evaluate"


class EventKind(StrEnum):
    """What an event is about."""

    JOB_STARTED = "jobStarted"
    JOB_RESOLVED = "jobResolved"
    STAGE_STARTED = "stageStarted"
    STAGE_PROGRESS = "stageProgress"
    STAGE_FINISHED = "stageFinished"
    WARNING = "warning"
    JOB_FINISHED = "jobFinished"
    JOB_FAILED = "jobFailed"


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: What happened.
        stage: The stage it happened in; None for events of the whole job.
        done, total, unit: Work finished and planned, e.g. 12 of 40 images.
        step, loss, rate, eta_seconds: Training only; `rate` is optimizer steps a second.
        resumed_from: The optimizer step that training went on from, when it just did.
        gpu_seconds: GPU time: of the stage over all runs so far (stageStarted, stageFinished), of
            the try in earlier runs (jobStarted).
        cached: The stage had nothing to do: its result was there, from an earlier run or job.
        seconds: Wall time of the finished stage or job.
        message: One line for a person.
        data: JSON-able details: the resolved settings (jobResolved), the result (jobFinished), the
            error's field, remedy, reason and exitCode, and what can be used anyway (jobFailed).
    """

    kind: EventKind
    stage: StageName | None = None
    done: int | None = None
    total: int | None = None
    unit: str | None = None
    step: int | None = None
    loss: float | None = None
    rate: float | None = None
    eta_seconds: float | None = None
    resumed_from: int | None = None
    gpu_seconds: float | None = None
    cached: bool | None = None
    seconds: float | None = None
    message: str | None = None
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The event without its empty fields, in the API's camelCase.

        Numbers that JSON does not have, such as a loss that diverged, are null.
        """
        names = {
            "eta_seconds": "etaSeconds",
            "resumed_from": "resumedFromStep",
            "gpu_seconds": "gpuSeconds",
        }
        return {
            names.get(key, key): _plain(value)
            for key, value in asdict(self).items()
            if value is not None and value != {}
        }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


Listener = Callable[[Event], None]
