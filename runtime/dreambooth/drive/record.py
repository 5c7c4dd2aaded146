"""The progress record: what the operator, and through it the user, is told of a running job.

A pure fold over the pipeline's events. Everything in it is bounded: texts are cut, numbers are
finite, lists end. Its parts have the fields of the API's status.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dreambooth.drive.work import Estimate, WorkPlan
from dreambooth.errors import ExitCode
from dreambooth.pipeline.progress import Event, EventKind, StageName

VERSION = 1
MAX_BYTES = 64 * 1024
MAX_WARNINGS, MAX_WARNING = 20, 500
MAX_MESSAGE, MAX_STAGE_MESSAGE, MAX_PATH = 4096, 1024, 512

CLASSES = {ExitCode.USER_ERROR: "user", ExitCode.BUDGET: "budget"}
INFRASTRUCTURE = "infrastructure"

QUALITY = (
    "encoder", "subjectFidelity", "baseFidelity", "photoCeiling", "gapClosed", "promptFidelity",
    "basePromptFidelity", "priorDrift", "diversity",
)  # fmt: skip
# Events that are told at once.
URGENT = {
    EventKind.JOB_STARTED,
    EventKind.JOB_RESOLVED,
    EventKind.STAGE_STARTED,
    EventKind.STAGE_FINISHED,
    EventKind.JOB_FINISHED,
    EventKind.JOB_FAILED,
}


@dataclass
class _Stage:
    state: str = "Pending"
    started: datetime | None = None
    ended: datetime | None = None
    # GPU time before this run.
    gpu_seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)


class ProgressRecord:
    """The record of one try."""

    def __init__(self, attempt: int, gpus: float, started: datetime) -> None:
        """`gpus` are held from `started` on."""
        self._attempt, self._gpus, self._started = attempt, gpus, started
        self._state = "Running"
        self._ended: datetime | None = None
        self._gpu_seconds = 0.0
        self._estimate: Estimate | None = None
        self._stages = {stage: _Stage() for stage in StageName}
        self._stage: StageName | None = None
        self._training: dict[str, Any] = {}
        self._resumed: int | None = None
        self._warnings: list[str] = []
        self._results: dict[str, Any] = {}

    @property
    def over(self) -> bool:
        """Whether nothing follows."""
        return self._state != "Running"

    def plans(self, plan: WorkPlan) -> None:
        """What there is to do is known."""
        self._estimate = Estimate(plan)

    def note(self, event: Event, now: datetime) -> None:
        """Takes in an event; what comes after the end is ignored."""
        if self.over:
            return
        if event.kind is EventKind.JOB_STARTED:
            self._gpu_seconds = event.gpu_seconds or 0.0
        elif event.kind is EventKind.JOB_RESOLVED:
            self._results["resolved"] = _resolved(event.data)
        elif event.kind is EventKind.WARNING:
            self._warn(event.message)
        elif event.kind is EventKind.JOB_FINISHED:
            self._finish(event.data, now)
        elif event.kind is EventKind.JOB_FAILED:
            self._fail(event, now)
        elif event.stage is not None:
            self._note_stage(event, event.stage, now)

    def to_json(self, now: datetime) -> dict[str, Any]:
        """The record as it is at `now`."""
        until = self._ended or now
        held = max(0.0, (until - self._started).total_seconds()) * self._gpus
        value: dict[str, Any] = {
            "version": VERSION,
            "attempt": self._attempt,
            "state": self._state,
            "startTime": timestamp(self._started),
            "updateTime": timestamp(now),
            "stages": [self._stage_json(name, until) for name in StageName],
            "progress": self._progress_json(),
            "gpuSeconds": round(self._gpu_seconds + held, 1),
        }
        if self._stage is not None:
            value["stage"] = self._stage.value
        if self._resumed is not None:
            value["resumedFromStep"] = self._resumed
        if self._warnings:
            value["warnings"] = list(self._warnings)
        return value | {name: part for name, part in self._results.items() if part}

    def encode(self, now: datetime) -> str:
        """The record as text of at most 64 KiB."""
        value = self.to_json(now)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if len(text.encode()) > MAX_BYTES:
            # Cannot be reached by what is bounded above; better without them than not at all.
            value.pop("warnings", None)
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        return text

    def _note_stage(self, event: Event, name: StageName, now: datetime) -> None:
        self._stage, stage = name, self._stages[name]
        if event.kind is EventKind.STAGE_STARTED:
            stage.state, stage.started, stage.ended = "Running", now, None
            stage.gpu_seconds = event.gpu_seconds or 0.0
            return
        if event.kind is EventKind.STAGE_FINISHED:
            self._finish_stage(event, name, now)
            return
        if event.total is not None:
            stage.details |= {"done": event.done or 0, "total": event.total}
        if event.unit:
            stage.details["unit"] = cut(event.unit, 32)
        if event.message:
            stage.details["message"] = cut(event.message, MAX_STAGE_MESSAGE)
        if event.resumed_from is not None:
            self._resumed = event.resumed_from
        if name is StageName.TRAIN and event.total:
            self._training = {"step": event.done or 0, "totalSteps": event.total}
            if event.loss is not None and math.isfinite(event.loss):
                self._training["loss"] = round(event.loss, 6)
        if self._estimate is not None and event.total:
            self._estimate.progressed(name, event.done or 0, event.total, event.rate)

    def _finish_stage(self, event: Event, name: StageName, now: datetime) -> None:
        stage = self._stages[name]
        stage.state, stage.ended = "Succeeded", now
        stage.gpu_seconds = event.gpu_seconds or 0.0
        stage.details["cached"] = bool(event.cached)
        if "total" in stage.details:
            stage.details["done"] = stage.details["total"]
        if self._estimate is not None:
            self._estimate.finished(name)

    def _finish(self, result: Mapping[str, Any], now: datetime) -> None:
        self._state, self._ended = "Succeeded", now
        self._results["quality"] = _quality(result)
        self._results["outputs"] = _outputs(result.get("outputs", {}))

    def _fail(self, event: Event, now: datetime) -> None:
        self._ended = now
        interrupted = event.data.get("state") == "Interrupted"
        self._state = "Interrupted" if interrupted else "Failed"
        for stage in self._stages.values():
            if stage.state == "Running":
                # An interrupted stage goes on another time.
                stage.state, stage.ended = ("Pending", None) if interrupted else ("Failed", now)
        if interrupted:
            return
        self._results["failure"] = _failure(event)
        self._results["outputs"] = _outputs(event.data.get("outputs", {}))

    def _warn(self, message: str | None) -> None:
        if message and len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(cut(message, MAX_WARNING))

    def _stage_json(self, name: StageName, until: datetime) -> dict[str, Any]:
        stage = self._stages[name]
        value: dict[str, Any] = {"name": name.value, "state": stage.state, **stage.details}
        seconds = stage.gpu_seconds
        if stage.started is not None:
            value["startTime"] = timestamp(stage.started)
            if stage.ended is None or stage.state == "Failed":
                end = stage.ended or until
                seconds += max(0.0, (end - stage.started).total_seconds()) * self._gpus
        if stage.ended is not None:
            value["endTime"] = timestamp(stage.ended)
        if stage.state != "Pending" or seconds:
            value["gpuSeconds"] = round(seconds, 1)
        return value

    def _progress_json(self) -> dict[str, Any]:
        value = dict(self._training)
        if self._state == "Succeeded":
            return value | {"percent": 100, "etaSeconds": 0}
        if self._estimate is not None:
            value["percent"] = self._estimate.percent
            eta = self._estimate.eta_seconds
            if eta is not None and not self.over:
                value["etaSeconds"] = eta
        return value


def timestamp(moment: datetime) -> str:
    """RFC 3339 with seconds, as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def cut(text: str, limit: int) -> str:
    """`text` with at most `limit` characters, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "token": (settings.get("token"), 64),
        "model": (settings.get("model"), MAX_PATH),
        "modelRevision": (settings.get("modelRevision"), 128),
        "modelDigest": (settings.get("modelDigest"), 128),
        "safetyChecker": (settings.get("safetyChecker"), 128),
        "encoder": (settings.get("encoder"), 64),
    }
    value: dict[str, Any] = {
        name: cut(text, limit) for name, (text, limit) in found.items() if isinstance(text, str)
    }
    numbers = {
        "classImages": settings.get("classImages", {}).get("count"),
        "trainingSteps": settings.get("training", {}).get("steps"),
        "learningRate": settings.get("training", {}).get("learningRate"),
    }
    return value | {name: number for name, number in numbers.items() if number is not None}


def _quality(result: Mapping[str, Any]) -> dict[str, Any]:
    figures = result.get("quality", {})
    value = {
        name: figures[name]
        for name in QUALITY
        if isinstance(figures.get(name), str)
        or (isinstance(figures.get(name), int | float) and math.isfinite(figures[name]))
    }
    if result.get("summary"):
        value["summary"] = cut(str(result["summary"]), MAX_STAGE_MESSAGE)
    return value


def _outputs(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Paths on the workspace."""
    folder = outputs.get("folder")
    if not isinstance(folder, str):
        return {}
    value = {"folder": cut(folder, MAX_PATH)}
    for name in ("model", "images", "contactSheet", "report"):
        if isinstance(outputs.get(name), str):
            value[name] = cut(f"{folder}/{outputs[name]}", MAX_PATH)
    if isinstance(outputs.get("modelDigest"), str):
        value["digest"] = cut(outputs["modelDigest"], 128)
    return value


def _failure(event: Event) -> dict[str, Any]:
    code = event.data.get("exitCode")
    value = {
        "class": CLASSES.get(ExitCode(code), INFRASTRUCTURE)
        if code in set(ExitCode)
        else INFRASTRUCTURE,
        "reason": str(event.data.get("reason") or "Failed"),
        "message": cut(event.message or "the job failed without a word", MAX_MESSAGE),
    }
    if event.data.get("field"):
        value["field"] = cut(str(event.data["field"]), MAX_PATH)
    return value
