"""What KubeRay says of a RayJob, read so that its contradictions do not matter.

`jobDeploymentStatus` wins over `jobStatus`, which can stay RUNNING for ever after the cluster is
gone; STOPPED ends as Complete; ValidationFailed is final though KubeRay does not call it so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from dreambooth_operator.clock import from_text
from dreambooth_operator.planner.observed import mapping, number, text
from dreambooth_operator.reasons import Reason

MAX_MESSAGE = 1000


class RayPhase(Enum):
    """Where a RayJob is."""

    PROVISIONING = "provisioning"
    RUNNING = "running"
    SUSPENDED = "suspended"
    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Whether KubeRay will do nothing more with it but take the cluster down."""
        return self in (RayPhase.SUCCEEDED, RayPhase.STOPPED, RayPhase.FAILED)


@dataclass(frozen=True)
class RayState:
    """A RayJob as KubeRay sees it.

    Attributes:
        reason, message: Why it failed, as KubeRay says it.
        start: When KubeRay began with it, or began again after it was suspended.
        ran_from, ran_to: When Ray ran the driver.
    """

    phase: RayPhase
    reason: str = ""
    message: str = ""
    start: datetime | None = None
    ran_from: datetime | None = None
    ran_to: datetime | None = None


def ray_state(ray_job: Mapping[str, Any]) -> RayState:
    """What KubeRay says."""
    status = mapping(ray_job, "status")
    deployment, job = text(status, "jobDeploymentStatus"), text(status, "jobStatus")
    suspended = mapping(ray_job, "spec").get("suspend") is True
    return RayState(
        phase=_phase(deployment, job, suspended),
        reason=text(status, "reason") or ("ValidationFailed" if "Valid" in deployment else ""),
        message=text(status, "message")[:MAX_MESSAGE],
        start=from_text(status.get("startTime")),
        ran_from=from_text(mapping(status, "rayJobInfo").get("startTime")),
        ran_to=from_text(mapping(status, "rayJobInfo").get("endTime")),
    )


def _phase(deployment: str, job: str, suspended: bool) -> RayPhase:
    if deployment == "Complete":
        return {"SUCCEEDED": RayPhase.SUCCEEDED, "FAILED": RayPhase.FAILED}.get(
            job, RayPhase.STOPPED
        )
    if deployment in ("Failed", "ValidationFailed"):
        return RayPhase.FAILED
    if deployment in ("Suspending", "Suspended") or suspended:
        return RayPhase.SUSPENDED
    return RayPhase.RUNNING if deployment == "Running" else RayPhase.PROVISIONING


def provisioning(ray_job: Mapping[str, Any]) -> tuple[Reason, str]:
    """What the cluster waits for, in KubeRay's words where it has some."""
    cluster = mapping(mapping(ray_job, "status"), "rayClusterStatus")
    conditions = cluster.get("conditions")
    for entry in conditions if isinstance(conditions, list) else ():
        if not isinstance(entry, Mapping):
            continue
        said = text(entry, "message")[:MAX_MESSAGE] or text(entry, "reason")
        if text(entry, "type") == "ReplicaFailure" and text(entry, "status") == "True":
            return (
                Reason.PODS_REFUSED,
                f"Pods are refused: {said} Quota, limits and policies of the namespace decide.",
            )
    wanted, there = number(cluster, "desiredWorkerReplicas"), number(cluster, "readyWorkerReplicas")
    if wanted is None:
        return Reason.PROVISIONING, "KubeRay is making the cluster."
    return (
        Reason.PROVISIONING,
        f"{_coarse(there or 0, wanted)} of {wanted} workers are ready; the driver starts when all "
        "are.",
    )


def _coarse(there: int, wanted: int) -> str:
    """A count that changes four times at most on its way, as each change is written to status."""
    step = max(1, -(-wanted // 4))
    counted = there - there % step
    return str(there) if step == 1 or there == wanted else f"At least {counted}"
