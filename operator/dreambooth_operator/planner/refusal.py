"""When the API refuses a child (quota, policy, admission), status says so in the API's words."""

from dataclasses import replace
from datetime import datetime

from dreambooth_operator.clock import to_text
from dreambooth_operator.job import Job
from dreambooth_operator.kube.port import Event
from dreambooth_operator.planner.conditions import phase
from dreambooth_operator.planner.plan import Plan
from dreambooth_operator.planner.situation import FALSE, State
from dreambooth_operator.planner.status import condition_entry, states_of
from dreambooth_operator.reasons import Condition, Reason

MAX_SAID = 1000


def refused(job: Job, decided: Plan, said: str, now: datetime) -> Plan:
    """What is left of a plan whose objects the API refuses: its status, with the reason in it.

    Args:
        job: The job as it was observed.
        decided: The plan.
        said: The API's words.
        now: The time, aware.
    """
    message = f"The cluster refuses what the job needs: {said[:MAX_SAID]}"
    state = State(FALSE, Reason.CHILD_REFUSED, message)
    base = dict(decided.status or job.status)
    seen = replace(job, status=base)
    states = states_of(seen) | {Condition.CLUSTER_READY: state}
    moment = to_text(now.replace(microsecond=0))
    entries = [condition_entry(job, type_, states[type_], moment) for type_ in Condition]
    status = base | {"conditions": entries, "phase": phase(states)}
    if status == job.status:
        return replace(decided, apply=(), delete=(), status=None, events=())
    new = job.condition(Condition.CLUSTER_READY).get("reason") != Reason.CHILD_REFUSED
    told = (Event("Warning", Reason.CHILD_REFUSED, message),) if new else ()
    return replace(decided, apply=(), delete=(), status=status, events=(*decided.events, *told))
