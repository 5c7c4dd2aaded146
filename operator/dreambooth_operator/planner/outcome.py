"""Whether a try is over, and whose failure it was.

Two witnesses are heard. KubeRay knows whether the driver's process ended, the driver knows why. The
driver's last word counts as soon as KubeRay agrees that the try is over, or after a while without
KubeRay, which can lose track of a driver whose head pod went away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dreambooth_operator.clock import seconds_between, to_text
from dreambooth_operator.planner.accounting import (
    effective_limits,
    gpu_seconds,
    total_gpu_seconds,
)
from dreambooth_operator.planner.observed import created, dying, mapping, text
from dreambooth_operator.planner.ray_state import RayPhase, RayState
from dreambooth_operator.planner.record import Record
from dreambooth_operator.planner.situation import Situation
from dreambooth_operator.reasons import FailureClass, Reason

# How long KubeRay may take to see that a driver has ended.
AGREE_SECONDS = 60
# The driver tells something at least every three intervals.
SILENT_INTERVALS, LEAST_SILENCE = 5, 45
# What the operator grants beyond limits.gpuHours before it stops what the driver should have.
OVERTIME_SECONDS = 120


@dataclass(frozen=True)
class Outcome:
    """How a try ended.

    Attributes:
        failure: A `FailureClass`; None for success and for tries that are just replaced.
    """

    failure: str | None
    reason: Reason | str
    message: str

    @property
    def success(self) -> bool:
        """Whether the job is done."""
        return self.failure is None and self.reason == Reason.SUCCEEDED


SUCCESS = Outcome(None, Reason.SUCCEEDED, "The model is tuned and the pictures are drawn.")

_BY_RAY_REASON = {
    "SubmissionFailed": (Reason.SUBMISSION_FAILED, "KubeRay could not submit the driver"),
    "ValidationFailed": (Reason.RAY_JOB_REFUSED, "KubeRay refuses the RayJob"),
    "JobStatusCheckTimeoutExceeded": (Reason.HEAD_UNREACHABLE, "KubeRay lost the head"),
    "AppFailed": (Reason.DRIVER_FAILED, "The driver ended without a last word"),
}


def outcome(situation: Situation) -> Outcome | None:
    """How the try that goes on ended, or None if it does go on."""
    ray, record = situation.ray, situation.record
    if ray and ray.phase is RayPhase.SUCCEEDED:
        return SUCCESS
    if record and record.over and _counts(situation, record, ray):
        told = _told(record)
        if ray is None and told and told.reason == Reason.INTERRUPTED:
            return Outcome(None, Reason.RAY_JOB_CHANGED, "The RayJob was deleted by someone else.")
        if told:
            return told
    if ray is None:
        return None
    if ray.phase is RayPhase.STOPPED:
        return _infrastructure(Reason.DRIVER_STOPPED, "Someone stopped the driver through Ray.")
    if ray.phase is RayPhase.FAILED:
        return _failed(ray, record)
    return _head_lost(situation) or _limit(situation)


def silence_after(situation: Situation) -> int:
    """Seconds after which a driver that tells nothing is called silent."""
    return max(LEAST_SILENCE, SILENT_INTERVALS * told_interval(situation))


def told_interval(situation: Situation) -> int:
    """The interval that the driver was given, which stands in its RayJob."""
    cluster = mapping(mapping(situation.ray_job or {}, "spec"), "rayClusterSpec")
    pod = mapping(mapping(mapping(cluster, "headGroupSpec"), "template"), "spec")
    containers = pod.get("containers")
    for container in containers if isinstance(containers, list) else ():
        variables = container.get("env") if isinstance(container, dict) else None
        for variable in variables if isinstance(variables, list) else ():
            if (
                isinstance(variable, dict)
                and variable.get("name") == "DREAMBOOTH_PROGRESS_INTERVAL"
            ):
                value = text(variable, "value")
                return int(value) if value.isascii() and value.isdigit() else 0
    return situation.config.progress_interval


def _counts(situation: Situation, record: Record, ray: RayState | None) -> bool:
    if ray is None or ray.phase.over:
        return True
    waited = seconds_between(record.update, situation.now) >= AGREE_SECONDS
    return waited and situation.heard is not None


def _told(record: Record) -> Outcome | None:
    if record.state == "Succeeded":
        return SUCCESS
    if record.failure:
        failure = record.failure
        return Outcome(failure.kind, failure.reason, failure.message)
    if record.state == "Interrupted":
        return _infrastructure(
            Reason.INTERRUPTED, "The driver was told to stop, and stopped in an orderly way."
        )
    return None


def _failed(ray: RayState, record: Record | None) -> Outcome:
    reason, words = _BY_RAY_REASON.get(
        ray.reason, (Reason.RAY_JOB_FAILED, f"KubeRay gave up ({ray.reason or 'no reason'})")
    )
    if ray.reason in ("DeadlineExceeded", "PreRunningDeadlineExceeded"):
        return Outcome(FailureClass.DEADLINE, Reason.RUN_TIMEOUT, f"KubeRay: {ray.message}")
    said = f": {ray.message}" if ray.message else ""
    heard = f" Its last word was at {to_text(record.update)}." if record else ""
    return _infrastructure(reason, f"{words}{said}.{heard}".replace("..", "."))


def _infrastructure(reason: Reason, message: str) -> Outcome:
    return Outcome(FailureClass.INFRASTRUCTURE, reason, message)


def _head_lost(situation: Situation) -> Outcome | None:
    """The driver is silent, and the head that ran it is gone: KubeRay may never notice."""
    ray, heard = situation.ray, situation.heard
    if ray is None or ray.phase is not RayPhase.RUNNING or heard is None:
        return None
    silence = seconds_between(heard, situation.now)
    if silence < silence_after(situation):
        return None
    # A node that went away keeps its pods for minutes, but not ready.
    long = silence >= 2 * silence_after(situation)
    heads = [head for head in situation.observed.heads if not (long and _unready(head))]
    if any(_may_run_driver(head, heard) for head in heads):
        return None
    return _infrastructure(
        Reason.HEAD_LOST, f"The head pod went away; the driver's last word was at {to_text(heard)}."
    )


def _may_run_driver(head: Mapping[str, object], heard: datetime) -> bool:
    """Whether a head pod is alive and was there when the driver last spoke."""
    born = created(head)
    phase = text(mapping(head, "status"), "phase")
    # Clocks of nodes differ a little.
    older = born is None or born <= heard + timedelta(seconds=5)
    return older and not dying(head) and phase in ("", "Pending", "Running", "Unknown")


def _unready(head: Mapping[str, object]) -> bool:
    conditions = mapping(head, "status").get("conditions")
    return any(
        isinstance(entry, dict) and entry.get("type") == "Ready" and entry.get("status") == "False"
        for entry in (conditions if isinstance(conditions, list) else ())
    )


def _limit(situation: Situation) -> Outcome | None:
    limits = effective_limits(
        situation.job, situation.config.limits_in(situation.job.names.namespace)
    )
    return (
        _provisioning_timeout(situation, limits.provisioning_minutes)
        or _run_timeout(situation, limits.run_minutes)
        or _over_budget(situation, limits.gpu_hours)
    )


def _provisioning_timeout(situation: Situation, minutes: int | None) -> Outcome | None:
    began = provisioning_since(situation)
    if minutes is None or seconds_between(began, situation.now) < minutes * 60:
        return None
    said = situation.job.condition("ClusterReady").get("message") or "KubeRay said nothing."
    return Outcome(
        FailureClass.DEADLINE,
        Reason.PROVISIONING_TIMEOUT,
        f"The machines were not there after {minutes} minutes (limits.provisioningMinutes). "
        f"The last that was known: {said} Ask for fewer workers, another pool or more time.",
    )


def provisioning_since(situation: Situation) -> datetime | None:
    """Since when the try waits for machines; None if it has them, or waits in a queue."""
    ray, live = situation.ray, situation.live
    if ray is None or live is None or ray.phase is not RayPhase.PROVISIONING or situation.heard:
        return None
    if ray.start or situation.job.queue:
        # KubeRay begins anew whenever a queue lets it go on.
        return ray.start
    return (created(situation.ray_job) if situation.ray_job else None) or live.start


def _run_timeout(situation: Situation, minutes: int | None) -> Outcome | None:
    if minutes is None or seconds_between(situation.ready_since, situation.now) < minutes * 60:
        return None
    return Outcome(
        FailureClass.DEADLINE,
        Reason.RUN_TIMEOUT,
        f"The try ran for {minutes} minutes (limits.runMinutes). Checkpoints are on the "
        "workspace. Make the job anew with a higher limit, more workers or fewer steps.",
    )


def _over_budget(situation: Situation, hours: float | None) -> Outcome | None:
    """The driver stops by itself; this is for one that does not."""
    if hours is None:
        return None
    used = gpu_seconds(situation, until=situation.now if situation.ready_since else None) or 0.0
    total = total_gpu_seconds(situation.job.attempts[:-1]) + used
    if total < hours * 3600 + OVERTIME_SECONDS * (situation.gpus or 1):
        return None
    return budget_reached(hours)


def budget_reached(hours: float) -> Outcome:
    """The end of a job that used what it may."""
    return Outcome(
        FailureClass.BUDGET,
        Reason.GPU_HOURS_REACHED,
        f"The job used its {hours:g} GPU-hours (limits.gpuHours). What it had is on the "
        "workspace. Make the job anew with a higher limit to go on.",
    )
