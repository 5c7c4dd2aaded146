"""A DreamBoothJob as the planner sees it: typed, whatever the object holds.

The API has checked the spec, and the status is the operator's own; what is nevertheless not as it
should be reads as absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from dreambooth_operator.clock import from_text, to_text
from dreambooth_operator.config import Limits
from dreambooth_operator.kube.kinds import Object
from dreambooth_operator.names import Names


@dataclass(frozen=True)
class Group:
    """Workers of one kind: how many, on which pool. None is the default pool."""

    pool: str | None
    workers: int


@dataclass(frozen=True)
class Attempt:
    """One try, an entry of status.attempts.

    Attributes:
        end: None as long as it goes on.
        failure: A `FailureClass`, or None if it did not fail.
    """

    number: int
    ray_job: str
    start: datetime
    end: datetime | None = None
    resumed_from_step: int | None = None
    gpu_seconds: float | None = None
    failure: str | None = None
    reason: str | None = None
    message: str | None = None

    def ended(
        self, now: datetime, reason: str, message: str, *, failure: str | None = None
    ) -> "Attempt":
        """The same try, over."""
        return replace(self, end=now, reason=str(reason), message=message, failure=failure)

    def to_status(self) -> Object:
        """The entry of status.attempts."""
        entry = {
            "number": self.number,
            "rayJob": self.ray_job,
            "startTime": to_text(self.start),
            "endTime": to_text(self.end) if self.end else None,
            "resumedFromStep": self.resumed_from_step,
            "gpuSeconds": self.gpu_seconds,
            "failure": self.failure,
            "reason": self.reason,
            "message": self.message,
        }
        return {key: value for key, value in entry.items() if value is not None}


@dataclass(frozen=True)
class Job:
    """A DreamBoothJob.

    Attributes:
        raw: The object itself.
        spec: Its spec, for what only passes through.
        status: Its status as it was observed.
        training: The workers that train.
        drawing: More workers that only draw, or None.
        limits: The job's own.
        ttl: Seconds from the end to deletion, None for never.
    """

    raw: Object
    names: Names
    generation: int
    resource_version: str
    deleting: bool
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    training: Group
    drawing: Group | None
    claim_name: str | None
    claim_size: str | None
    storage_class: str | None
    queue: str | None
    suspended: bool
    retries: int
    limits: Limits
    ttl: int | None
    attempts: tuple[Attempt, ...]

    @property
    def key(self) -> str:
        """Namespace and name."""
        return f"{self.names.namespace}/{self.names.job}"

    @property
    def attempt(self) -> Attempt | None:
        """The current or last try."""
        return self.attempts[-1] if self.attempts else None

    def condition(self, type_: str) -> Mapping[str, Any]:
        """A condition as it was observed; empty if there is none."""
        for entry in _list(self.status, "conditions"):
            if isinstance(entry, Mapping) and entry.get("type") == type_:
                return entry
        return {}

    def secret_refs(self) -> tuple[str, ...]:
        """Secrets whose keys the job's pods get as environment variables, each once."""
        model, photos = _map(self.spec, "model"), photo_source(self.spec)
        found = [_text(_map(part, "secretRef"), "name") for part in (model, photos)]
        return tuple(dict.fromkeys(name for name in found if name))

    def photo_mount(self) -> tuple[str, str] | None:
        """Kind (configMap or secret) and name of the object whose keys are the photos."""
        photos = photo_source(self.spec)
        for kind in ("configMap", "secret"):
            if name := _text(_map(photos, kind), "name"):
                return kind, name
        return None


def parse_job(raw: Object) -> Job:
    """The job that an object of the API is.

    Raises:
        KeyError: If it has no name, namespace or uid, which the API gives to every object.
    """
    metadata = raw["metadata"]
    spec, status = _map(raw, "spec"), _map(raw, "status")
    cluster, workspace, limits = (_map(spec, name) for name in ("cluster", "workspace", "limits"))
    drawing = _map(cluster, "generation")
    return Job(
        raw=raw,
        names=Names(str(metadata["name"]), str(metadata["namespace"]), str(metadata["uid"])),
        generation=_integer(metadata, "generation") or 0,
        resource_version=str(metadata.get("resourceVersion", "")),
        deleting=bool(metadata.get("deletionTimestamp")),
        spec=spec,
        status=status,
        training=_group(cluster),
        drawing=_group(drawing) if drawing else None,
        claim_name=_text(workspace, "claimName"),
        claim_size=_text(workspace, "size"),
        storage_class=_text(workspace, "storageClassName"),
        queue=_text(spec, "queueName"),
        suspended=spec.get("suspend") is True,
        retries=_or(_integer(spec, "retries"), 3),
        limits=Limits(
            gpu_hours=_number(limits, "gpuHours"),
            provisioning_minutes=_integer(limits, "provisioningMinutes"),
            run_minutes=_integer(limits, "runMinutes"),
        ),
        ttl=_integer(spec, "ttlSecondsAfterFinished"),
        attempts=_attempts(status),
    )


def photo_source(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """spec.subject.photos."""
    return _map(_map(spec, "subject"), "photos")


def _group(entry: Mapping[str, Any]) -> Group:
    return Group(pool=_text(entry, "pool"), workers=max(1, _or(_integer(entry, "workers"), 1)))


def _attempts(status: Mapping[str, Any]) -> tuple[Attempt, ...]:
    found: dict[int, Attempt] = {}
    for entry in _list(status, "attempts"):
        if not isinstance(entry, Mapping):
            continue
        number, start = _integer(entry, "number"), from_text(entry.get("startTime"))
        if number is None or number < 1 or start is None:
            continue
        found[number] = Attempt(
            number=number,
            ray_job=_text(entry, "rayJob") or "",
            start=start,
            end=from_text(entry.get("endTime")),
            resumed_from_step=_integer(entry, "resumedFromStep"),
            gpu_seconds=_number(entry, "gpuSeconds"),
            failure=_text(entry, "failure"),
            reason=_text(entry, "reason"),
            message=_text(entry, "message"),
        )
    return tuple(found[number] for number in sorted(found))


def _map(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(parent: Mapping[str, Any], name: str) -> list[Any]:
    value = parent.get(name)
    return value if isinstance(value, list) else []


def _text(parent: Mapping[str, Any], name: str) -> str | None:
    value = parent.get(name)
    return value if isinstance(value, str) and value else None


def _integer(parent: Mapping[str, Any], name: str) -> int | None:
    value = parent.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(parent: Mapping[str, Any], name: str) -> float | None:
    value = parent.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
