"""`plan`: what to do next for one job."""

from datetime import datetime, timedelta

from dreambooth_operator.clock import from_text
from dreambooth_operator.config import Config
from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import RAY_JOB, Object, Ref, ref_of
from dreambooth_operator.planner.events import events
from dreambooth_operator.planner.observed import Observed, dying, name_of, uid_of
from dreambooth_operator.planner.plan import Deletion, Plan
from dreambooth_operator.planner.ray_state import ray_state
from dreambooth_operator.planner.rules import RULES, WAIT_SECONDS
from dreambooth_operator.planner.situation import UNKNOWN, Situation, Step
from dreambooth_operator.planner.status import build_status, held_back
from dreambooth_operator.reasons import Condition


def plan(job: Job, observed: Observed, now: datetime, config: Config) -> Plan:
    """What to do next for a job.

    Pure: the same arguments give the same answer, and once that is carried out and nothing else
    has happened, the next answer is to do nothing. It never raises, whatever was observed.

    Args:
        job: The job as it is in the API.
        observed: Its surroundings, read after it.
        now: The time, aware.
        config: The settings.
    """
    now = now.replace(microsecond=0)
    if job.deleting:
        # Kubernetes deletes the children, because the job owns them.
        return Plan()
    if finished(job):
        return _rest(job, observed, now)
    situation = Situation(job, observed, now, config)
    for rule in RULES:
        step = rule(situation)
        if step is not None:
            return _carry_out(situation, step)
    return Plan(requeue_after=WAIT_SECONDS)


def finished(job: Job) -> bool:
    """Whether the job has succeeded or failed for good."""
    return job.condition(Condition.SUCCEEDED).get("status", UNKNOWN) in ("True", "False")


def _carry_out(situation: Situation, step: Step) -> Plan:
    status = build_status(situation, step)
    deletions = tuple(_deletion(stray) for stray in situation.strays if not dying(stray))
    requeue = step.requeue_after
    if status == situation.job.status:
        # Nothing to write down. What was to follow at once upon the writing can follow.
        return Plan(step.apply, deletions, None, step.events, requeue)
    wait = held_back(situation, status)
    if wait is not None:
        return Plan(
            step.apply, deletions, None, (), wait if requeue is None else min(wait, requeue)
        )
    return Plan(step.apply, deletions, status, events(situation, step, status), requeue)


def _rest(job: Job, observed: Observed, now: datetime) -> Plan:
    """After the end: take down what still runs, and delete the job when its time has come."""
    last = job.attempt.ray_job if job.attempt else None
    deletions = [
        _deletion(obj)
        for obj in observed.ray_jobs
        if not dying(obj) and not (name_of(obj) == last and ray_state(obj).phase.over)
    ]
    # ttl and suspend can still be changed; whoever waits for the change to be seen looks here.
    seen = job.status.get("observedGeneration") == job.generation
    status = None if seen else {**job.status, "observedGeneration": job.generation}
    end = from_text(job.status.get("completionTime"))
    if job.ttl is None or end is None:
        return Plan(delete=tuple(deletions), status=status)
    due = end + timedelta(seconds=job.ttl) if job.ttl < 10**9 else None
    if due and due <= now:
        # Whoever refuses it now may not refuse it later.
        own = Deletion(ref_of(job.raw), job.names.uid)
        return Plan(delete=(*deletions, own), requeue_after=WAIT_SECONDS)
    wait = (due - now).total_seconds() if due else None
    return Plan(delete=tuple(deletions), status=status, requeue_after=wait)


def _deletion(ray_job: Object) -> Deletion:
    namespace = str(ray_job["metadata"].get("namespace", ""))
    return Deletion(Ref(RAY_JOB, namespace, name_of(ray_job)), uid_of(ray_job))
