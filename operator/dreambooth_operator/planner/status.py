"""The whole status of a job, from what a rule decided and what the driver told."""

from collections.abc import Mapping
from typing import Any

from dreambooth_operator.clock import from_text, seconds_between, to_text
from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import Object
from dreambooth_operator.planner.accounting import total_gpu_seconds
from dreambooth_operator.planner.conditions import Conditions, phase
from dreambooth_operator.planner.display import display
from dreambooth_operator.planner.situation import UNKNOWN, Situation, State, Step
from dreambooth_operator.reasons import Condition

MAX_MESSAGE = 4096
# What changes all the time while a job runs, and is written at most once an interval.
_QUIET = ("progress", "gpuSeconds", "cost", "display")
_QUIET_OF_STAGES = ("done", "total", "gpuSeconds", "message")

_INITIAL = {type_: State(UNKNOWN, "Unknown", "Not known yet.") for type_ in Condition}


def build_status(situation: Situation, step: Step) -> Object:
    """The status that the job shall have."""
    job, now = situation.job, situation.now
    states = _states(job, step)
    finished = states[Condition.SUCCEEDED].status != UNKNOWN
    going_on = bool(step.attempts) and step.attempts[-1].end is None
    status: Object = {
        "observedGeneration": job.generation,
        "conditions": [
            condition_entry(job, type_, states[type_], to_text(now)) for type_ in Condition
        ],
        "phase": phase(states),
        **_told(situation, going_on=going_on, failed=phase(states) == "Failed"),
        "gpuSeconds": total_gpu_seconds(step.attempts),
    }
    if step.attempts:
        last = step.attempts[-1]
        status |= {
            "startTime": job.status.get("startTime") or to_text(step.attempts[0].start),
            "attempt": last.number,
            "rayJob": last.ray_job,
            "attempts": [_bounded(attempt.to_status()) for attempt in step.attempts],
        }
    if finished:
        status["completionTime"] = job.status.get("completionTime") or to_text(now)
    if cost := _cost(situation, status["gpuSeconds"]):
        status["cost"] = cost
    if shown := display(status, running=going_on):
        status["display"] = shown
    return status


def states_of(job: Job) -> Conditions:
    """The conditions as they were observed."""
    states = dict(_INITIAL)
    for type_ in Condition:
        found = job.condition(type_)
        if found:
            states[type_] = State(
                str(found.get("status", UNKNOWN)),
                str(found.get("reason", "")),
                str(found.get("message", "")),
            )
    return states


def held_back(situation: Situation, status: Object) -> float | None:
    """Seconds for which a change can wait because only figures moved; None to write it now."""
    job = situation.job
    if _loud(status) != _loud(job.status):
        return None
    written = from_text(_map(job.status, "progress").get("updateTime"))
    told = from_text(_map(status, "progress").get("updateTime"))
    if written is None or told is None:
        return None
    wait = situation.config.progress_interval - seconds_between(written, situation.now)
    return wait if wait > 0 else None


def _loud(status: Mapping[str, Any]) -> object:
    """What of a status people want to see at once."""
    rest = {key: value for key, value in status.items() if key not in _QUIET}
    rest["stages"] = [
        {key: value for key, value in stage.items() if key not in _QUIET_OF_STAGES}
        for stage in _maps(status, "stages")
    ]
    rest["attempts"] = [
        {key: value for key, value in attempt.items() if key != "gpuSeconds"}
        for attempt in _maps(status, "attempts")
    ]
    rest["conditions"] = [
        {key: value for key, value in condition.items() if key != "message"}
        for condition in _maps(status, "conditions")
    ]
    return rest


def _states(job: Job, step: Step) -> Conditions:
    return states_of(job) | dict(step.conditions)


def condition_entry(job: Job, type_: Condition, state: State, now: str) -> Object:
    """The entry of status.conditions; `now` counts only if the condition's status is new."""
    before = job.condition(type_)
    same = before.get("status") == state.status and from_text(before.get("lastTransitionTime"))
    return {
        "type": str(type_),
        "status": state.status,
        "observedGeneration": job.generation,
        "lastTransitionTime": before["lastTransitionTime"] if same else now,
        "reason": str(state.reason),
        "message": state.message[:MAX_MESSAGE],
    }


def _bounded(entry: Object) -> Object:
    return entry | ({"message": entry["message"][:MAX_MESSAGE]} if "message" in entry else {})


def _told(situation: Situation, *, going_on: bool, failed: bool) -> Object:
    """What came from drivers: of this try where it told something, else as it was."""
    before, record = situation.job.status, situation.record
    told: Object = {}
    names = ("stage", "stages", "progress", "quality", "outputs", "resolved")
    for name in names:
        if before.get(name):
            told[name] = before[name]
    if record:
        found = {
            "stage": record.stage,
            "stages": list(record.stages),
            "progress": record.progress | {"updateTime": to_text(record.update)},
            "quality": record.quality,
            "outputs": record.outputs,
        }
        told |= {name: value for name, value in found.items() if value}
    told["resolved"] = _map(told, "resolved") | (record.resolved if record else {})
    if going_on:
        told["resolved"] |= _here(situation)
    if not told["resolved"]:
        del told["resolved"]
    if not going_on:
        told["stages"] = [_at_rest(stage, failed=failed) for stage in _maps(told, "stages")]
        if not told["stages"]:
            del told["stages"]
        if "progress" in told:
            left = {key: value for key, value in told["progress"].items() if key != "etaSeconds"}
            told["progress"] = left
    return told


def _at_rest(stage: Mapping[str, Any], *, failed: bool) -> Object:
    """A stage that no driver works on any more does not run."""
    if stage.get("state") != "Running":
        return dict(stage)
    return {**stage, "state": "Failed" if failed else "Pending"}


def _here(situation: Situation) -> Object:
    """What the operator chose where the manifest leaves a choice."""
    if situation.cluster is None:
        return {}
    return {
        "image": situation.config.runtime.image,
        "pool": situation.cluster.groups[0].pool.name,
        "claimName": situation.cluster.claim,
    }


def _cost(situation: Situation, gpu_seconds: float) -> Object | None:
    price = situation.cluster.price() if situation.cluster else None
    if price is None:
        before = situation.job.status.get("cost")
        return dict(before) if isinstance(before, Mapping) else None
    return {"amount": round(gpu_seconds / 3600 * price[0], 4), "currency": price[1]}


def _map(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return dict(value) if isinstance(value, Mapping) else {}


def _maps(parent: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = parent.get(name)
    return (
        [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
    )
