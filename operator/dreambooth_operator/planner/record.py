"""The progress record: what the driver tells, taken with care.

A pod writes it, so it can be torn, too large, of another try, or made up. What has the type and
the bounds of the field in status it is meant for is taken; the rest is dropped; nothing raises.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dreambooth_operator.clock import from_text, to_text
from dreambooth_operator.kube.kinds import Object
from dreambooth_operator.names import PROGRESS_KEY
from dreambooth_operator.reasons import FailureClass

MAX_BYTES = 64 * 1024
STAGES = ("photos", "classImages", "train", "generate", "evaluate")
MAX_WARNINGS = 20
# More than any real figure, and exact in every JSON library.
_LARGEST = 10**12

Check = Callable[[object], Any]
"""Gives the value as status can have it, or None to drop it."""


@dataclass(frozen=True)
class Failure:
    """Why the driver gave up.

    Attributes:
        kind: A `FailureClass`.
        message: What is wrong and what to do, with the field it is about.
    """

    kind: str
    reason: str
    message: str


@dataclass(frozen=True)
class Record:
    """What the driver of one try last told.

    Attributes:
        state: Running, Succeeded, Failed or Interrupted.
        update: When it was told.
        stages, progress, quality, outputs, resolved: As in status.
    """

    attempt: int
    state: str
    update: datetime
    start: datetime | None = None
    stage: str | None = None
    stages: tuple[Object, ...] = ()
    progress: Object = field(default_factory=dict)
    resumed_from_step: int | None = None
    gpu_seconds: float | None = None
    quality: Object = field(default_factory=dict)
    outputs: Object = field(default_factory=dict)
    resolved: Object = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None

    @property
    def over(self) -> bool:
        """Whether the driver has said its last word."""
        return self.state != "Running"


def parse_record(config_map: Mapping[str, Any] | None) -> Record | None:
    """The record in the progress ConfigMap, or None if there is none to be used."""
    data = config_map.get("data") if config_map else None
    text = data.get(PROGRESS_KEY) if isinstance(data, Mapping) else None
    found = _load(text)
    if found is None or found.get("version") != 1:
        return None
    head = _clean(found, _HEAD)
    if not head.keys() >= {"attempt", "state", "updateTime"}:
        return None
    stages = found.get("stages")
    warnings = found.get("warnings")
    return Record(
        attempt=head["attempt"],
        state=head["state"],
        update=_moment(head["updateTime"]),
        start=from_text(head.get("startTime")),
        stage=head.get("stage"),
        stages=_stages(stages) if isinstance(stages, list) else (),
        progress=_clean(found.get("progress"), _PROGRESS),
        resumed_from_step=head.get("resumedFromStep"),
        gpu_seconds=head.get("gpuSeconds"),
        quality=_clean(found.get("quality"), _QUALITY),
        outputs=_clean(found.get("outputs"), _OUTPUTS),
        resolved=_clean(found.get("resolved"), _RESOLVED),
        warnings=_warnings(warnings) if isinstance(warnings, list) else (),
        failure=_failure(found.get("failure")),
    )


def _load(text: object) -> dict[str, Any] | None:
    if not isinstance(text, str) or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(limit: int, pattern: str = r"(?s).+") -> Check:
    def check(value: object) -> str | None:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            return None
        # Half of a surrogate pair cannot be sent to the API, nor can some control characters.
        clean = "".join(c if c.isprintable() or c in "\n\t" else " " for c in value)
        return clean if len(clean) <= limit else clean[: limit - 1] + "…"

    return check


def _integer(minimum: int = 0, maximum: int = _LARGEST) -> Check:
    def check(value: object) -> int | None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return value if isinstance(value, int) and whole and minimum <= value <= maximum else None

    return check


def _number(minimum: float = -_LARGEST, maximum: float = _LARGEST) -> Check:
    def check(value: object) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value if minimum <= value <= maximum and math.isfinite(value) else None

    return check


def _choice(*allowed: str) -> Check:
    return lambda value: value if isinstance(value, str) and value in allowed else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _time(value: object) -> str | None:
    moment = from_text(value)
    return to_text(moment) if moment else None


_WORD = r"[A-Za-z][A-Za-z0-9]*"
_HEAD: Mapping[str, Check] = {
    "attempt": _integer(1),
    "state": _choice("Running", "Succeeded", "Failed", "Interrupted"),
    "updateTime": _time,
    "startTime": _time,
    "stage": _choice(*STAGES),
    "resumedFromStep": _integer(),
    "gpuSeconds": _number(0),
}
_STAGE: Mapping[str, Check] = {
    "name": _choice(*STAGES),
    "state": _choice("Pending", "Running", "Succeeded", "Failed"),
    "startTime": _time,
    "endTime": _time,
    "done": _integer(),
    "total": _integer(),
    "unit": _text(32),
    "gpuSeconds": _number(0),
    "cached": _flag,
    "message": _text(1024),
}
_PROGRESS: Mapping[str, Check] = {
    "percent": _integer(0, 100),
    "etaSeconds": _integer(),
    "step": _integer(),
    "totalSteps": _integer(),
    "loss": _number(),
}
_QUALITY: Mapping[str, Check] = {
    "encoder": _text(64),
    **{
        name: _number()
        for name in (
            "subjectFidelity",
            "baseFidelity",
            "photoCeiling",
            "gapClosed",
            "promptFidelity",
            "basePromptFidelity",
            "priorDrift",
            "diversity",
        )
    },
    "summary": _text(1024),
}
_OUTPUTS: Mapping[str, Check] = {
    **{name: _text(512) for name in ("folder", "model", "images", "contactSheet", "report")},
    "digest": _text(128),
}
_RESOLVED: Mapping[str, Check] = {
    "token": _text(64),
    "model": _text(512),
    "modelRevision": _text(128),
    "modelDigest": _text(128),
    "safetyChecker": _text(128),
    "encoder": _text(64),
    "classImages": _integer(),
    "trainingSteps": _integer(),
    "learningRate": _number(0),
}
_FAILURE: Mapping[str, Check] = {
    "class": _choice(FailureClass.USER, FailureClass.INFRASTRUCTURE, FailureClass.BUDGET),
    "reason": _text(128, _WORD),
    "field": _text(256),
    "message": _text(3500),
}


def _clean(found: object, checks: Mapping[str, Check]) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        return {}
    checked = {name: check(found[name]) for name, check in checks.items() if name in found}
    return {name: value for name, value in checked.items() if value is not None}


def _stages(found: list[Any]) -> tuple[Object, ...]:
    """One entry a stage, in the order they run, however they were told."""
    stages = {}
    for entry in found[: 4 * len(STAGES)]:
        stage = _clean(entry, _STAGE)
        if stage.keys() >= {"name", "state"}:
            stages[stage["name"]] = stage
    return tuple(stages[name] for name in STAGES if name in stages)


def _warnings(found: list[Any]) -> tuple[str, ...]:
    check = _text(900)
    texts = (check(entry) for entry in found[:MAX_WARNINGS])
    return tuple(dict.fromkeys(text for text in texts if text))


def _failure(found: object) -> Failure | None:
    failure = _clean(found, _FAILURE)
    if not failure.keys() >= {"class", "reason"}:
        return None
    message = failure.get("message", "The driver did not say more.")
    place = failure.get("field")
    if place and not message.startswith(place):
        message = f"{place}: {message}"
    return Failure(kind=failure["class"], reason=failure["reason"], message=message)


def _moment(text: str) -> datetime:
    moment = from_text(text)
    assert moment is not None, text
    return moment
