"""What to tell people: one event for each change that they would want to hear of."""

from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import Object
from dreambooth_operator.kube.port import Event
from dreambooth_operator.planner.conditions import Conditions
from dreambooth_operator.planner.display import duration
from dreambooth_operator.planner.situation import FALSE, TRUE, Situation, Step
from dreambooth_operator.planner.status import states_of
from dreambooth_operator.reasons import Condition, Reason

MAX_MESSAGE = 1000
_WORRYING = (Reason.PODS_REFUSED, Reason.CHILD_REFUSED)


def events(situation: Situation, step: Step, status: Object) -> tuple[Event, ...]:
    """The events of a step, in the order in which things happened."""
    before = states_of(situation.job)
    after = before | dict(step.conditions)
    told = [
        *_acceptance(before, after),
        *_attempts(situation.job, step),
        *_cluster(before, after),
        *_stage(situation.job, status),
        *_suspension(before, after),
        *_end(situation, before, after, status),
        *step.events,
    ]
    return tuple(Event(one.type, one.reason, one.message[:MAX_MESSAGE]) for one in told)


def _acceptance(before: Conditions, after: Conditions) -> list[Event]:
    was, now = before[Condition.ACCEPTED], after[Condition.ACCEPTED]
    if now.status == FALSE and was.reason != now.reason:
        return [Event("Warning", str(now.reason), now.message)]
    if now.status == TRUE and was.status == FALSE:
        return [Event("Normal", str(now.reason), now.message)]
    return []


def _attempts(job: Job, step: Step) -> list[Event]:
    found = []
    old = {attempt.number: attempt for attempt in job.attempts}
    for attempt in step.attempts[-2:]:
        was = old.get(attempt.number)
        if was is None and attempt.end is None:
            message = f"Try {attempt.number} begins with RayJob {attempt.ray_job}."
            found.append(Event("Normal", Reason.ATTEMPT_STARTED, message))
        if was and was.end is None and attempt.end and attempt.reason != Reason.SUCCEEDED:
            kind = "Warning" if attempt.failure else "Normal"
            found.append(
                Event(
                    "Warning" if kind == "Warning" else "Normal",
                    attempt.reason or Reason.NOT_RUNNING,
                    f"Try {attempt.number} is over. {attempt.message or ''}".strip(),
                )
            )
    return found


def _cluster(before: Conditions, after: Conditions) -> list[Event]:
    was, now = before[Condition.CLUSTER_READY], after[Condition.CLUSTER_READY]
    if now.status == TRUE and was.status != TRUE:
        return [Event("Normal", str(now.reason), now.message)]
    if now.reason != was.reason and now.reason in _WORRYING:
        return [Event("Warning", str(now.reason), now.message)]
    if now.reason != was.reason and now.reason == Reason.QUEUED:
        return [Event("Normal", str(now.reason), now.message)]
    return []


def _stage(job: Job, status: Object) -> list[Event]:
    stage = status.get("stage")
    running = status["phase"] == "Running"
    if not running or not stage or stage == job.status.get("stage"):
        return []
    return [Event("Normal", Reason.STAGE_STARTED, f"Stage {stage} runs.")]


def _suspension(before: Conditions, after: Conditions) -> list[Event]:
    was, now = before[Condition.SUSPENDED], after[Condition.SUSPENDED]
    if now.status == TRUE and was.status != TRUE:
        return [Event("Normal", str(now.reason), now.message)]
    return []


def _end(
    situation: Situation, before: Conditions, after: Conditions, status: Object
) -> list[Event]:
    was, now = before[Condition.SUCCEEDED], after[Condition.SUCCEEDED]
    if was.status == now.status or now.status not in (TRUE, FALSE):
        return []
    warnings = situation.record.warnings if situation.record else ()
    told = [Event("Warning", Reason.WARNED, warning) for warning in warnings]
    if now.status == TRUE:
        used = status.get("gpuSeconds") or 0
        time = f" It took {duration(used)} of GPU time." if used else ""
        summary = status.get("quality", {}).get("summary")
        quality = f" {summary}" if summary else ""
        return [*told, Event("Normal", str(now.reason), f"{now.message}{time}{quality}")]
    return [*told, Event("Warning", "Failed", f"{now.reason}: {now.message}")]
