"""The rules, in the order they are asked; the first that has something to say decides.

A try is written to status before its RayJob is made, and its end before the RayJob is deleted. So
whenever the operator is interrupted, status tells which RayJob may be there, and the next look at
the job goes on from that: nothing is started twice.
"""

from dataclasses import replace

from dreambooth_operator.children.intent import lasting_children, outdated
from dreambooth_operator.children.pods import Try
from dreambooth_operator.children.ray_job import ray_job
from dreambooth_operator.clock import seconds_between, to_text
from dreambooth_operator.job import Attempt
from dreambooth_operator.kube.kinds import Object
from dreambooth_operator.names import QUEUE_LABEL
from dreambooth_operator.planner import accounting, conditions
from dreambooth_operator.planner.observed import dying, mapping, metadata
from dreambooth_operator.planner.outcome import (
    Outcome,
    budget_reached,
    outcome,
    provisioning_since,
    silence_after,
)
from dreambooth_operator.planner.ray_state import RayPhase, provisioning
from dreambooth_operator.planner.scheduling import unschedulable
from dreambooth_operator.planner.situation import (
    FALSE,
    TRUE,
    UNKNOWN,
    Rule,
    Situation,
    State,
    Step,
)
from dreambooth_operator.reasons import Condition, FailureClass, Reason

# How often a job is looked at that waits for something nobody tells of.
WAIT_SECONDS = 30.0
POLL_SECONDS = 60.0
# Jobs together write their progress about ten times a second at most.
BUSY_JOBS_A_SECOND = 10


def try_is_over(situation: Situation) -> Step | None:
    """The try that went on has ended: the job is done, failed, or will be tried again."""
    live = situation.live
    ended = outcome(situation) if live else None
    return _end(situation, live, ended) if live and ended else None


def suspend(situation: Situation) -> Step | None:
    """spec.suspend: end the try, then wait until its RayJob is gone."""
    job, live = situation.job, situation.live
    if not job.suspended:
        return None
    accepted = _accepted(situation)
    giving_back = State(FALSE, Reason.SUSPENDING, "The machines are being given back.")
    if live:
        message = f"Try {live.number} was suspended."
        attempt = _closed(situation, live, Outcome(None, Reason.SUSPENDED, message))
        attempts = accounting.changed(job.attempts, attempt)
        return Step(conditions.suspended(giving_back, accepted), attempts, requeue_after=0.0)
    if situation.strays:
        states = conditions.suspended(giving_back, accepted)
        return Step(states, job.attempts, requeue_after=WAIT_SECONDS)
    state = State(TRUE, Reason.SUSPENDED, "spec.suspend is true. Set it to false to go on.")
    return Step(conditions.suspended(state, accepted), job.attempts)


def cannot_run(situation: Situation) -> Step | None:
    """Something is missing that the job needs to start; a RayJob that runs already is let run."""
    problem = situation.problem
    if problem is None or situation.ray_job is not None:
        return None
    states = conditions.waiting(conditions.NOT_STARTED, accepted=_accepted(situation))
    return Step(states, situation.job.attempts, requeue_after=WAIT_SECONDS)


def clean_up_first(situation: Situation) -> Step | None:
    """There is another RayJob yet: two of one job must never be alive."""
    if not situation.strays or situation.ray_job is not None:
        return None
    names = ", ".join(str(metadata(stray).get("name")) for stray in situation.strays)
    message = f"Waits until KubeRay has taken down {names}."
    return Step(
        conditions.waiting(State(FALSE, Reason.CLEANING_UP, message)) | _retrying(situation),
        situation.job.attempts,
        requeue_after=WAIT_SECONDS,
    )


def begin_try(situation: Situation) -> Step | None:
    """Write down that a try begins; its RayJob is made at the next look."""
    job, now = situation.job, situation.now
    if situation.live:
        return None
    limits = accounting.effective_limits(job, situation.config.limits_in(job.names.namespace))
    used = accounting.total_gpu_seconds(job.attempts)
    if limits.gpu_hours is not None and used >= limits.gpu_hours * 3600:
        return _fail(job.attempts, budget_reached(limits.gpu_hours))
    if accounting.exhausted(job):
        message = "The job has had all the tries that can be numbered. Make it anew."
        return _fail(job.attempts, Outcome(None, Reason.TOO_MANY_ATTEMPTS, message))
    start = accounting.next_start(job, situation.config.backoff)
    if start and start > now:
        states = conditions.waiting(conditions.RELEASED) | _retrying(situation)
        return Step(states, job.attempts, requeue_after=(start - now).total_seconds())
    attempts = accounting.begun(job, now)
    return Step(conditions.waiting(conditions.ASKED), attempts, requeue_after=0.0)


def make_children(situation: Situation) -> Step | None:
    """The try is written down and has no RayJob: make all that belongs to it, the RayJob last."""
    live, cluster = situation.live, situation.cluster
    if live is None or cluster is None or situation.ray_job is not None:
        return None
    job, config = situation.job, situation.config
    limits = accounting.effective_limits(job, config.limits_in(job.names.namespace))
    interval = max(config.progress_interval, situation.observed.busy // BUSY_JOBS_A_SECOND)
    attempt = Try(
        number=live.number,
        interval=interval,
        gpu_seconds_used=accounting.total_gpu_seconds(job.attempts[:-1]),
        gpu_seconds_limit=None if limits.gpu_hours is None else limits.gpu_hours * 3600,
    )
    return Step(
        conditions.waiting(conditions.ASKED),
        job.attempts,
        apply=(*_mended(situation), ray_job(job, cluster, attempt, config)),
        requeue_after=WAIT_SECONDS,
    )


def replace_changed(situation: Situation) -> Step | None:
    """The RayJob waits, and not as it should: it was preempted, paused by hand, or queued anew."""
    live, ray, obj = situation.live, situation.ray, situation.ray_job
    if live is None or ray is None or obj is None or ray.phase is not RayPhase.SUSPENDED:
        return None
    queue = mapping(metadata(obj), "labels").get(QUEUE_LABEL)
    if queue != situation.job.queue:
        message = "spec.queueName was changed."
        return _end(situation, live, Outcome(None, Reason.RAY_JOB_CHANGED, message))
    if queue and (situation.heard or situation.ready_since):
        message = f"Kueue took the machines back; the job is in queue {queue} again."
        return _end(situation, live, Outcome(None, Reason.PREEMPTED, message))
    if not queue:
        message = "The RayJob was suspended by someone else."
        return _end(situation, live, Outcome(None, Reason.RAY_JOB_CHANGED, message))
    return None


def wait_for_machines(situation: Situation) -> Step | None:
    """The RayJob is there, its cluster not yet."""
    live, ray, obj = situation.live, situation.ray, situation.ray_job
    if live is None or ray is None or obj is None or situation.heard:
        return None
    if dying(obj):
        message = f"Waits until KubeRay has taken down {live.ray_job}, which was deleted."
        state = State(FALSE, Reason.CLEANING_UP, message)
    elif ray.phase is RayPhase.SUSPENDED:
        state = State(FALSE, Reason.QUEUED, f"Waits in queue {situation.job.queue}.")
    elif ray.phase is RayPhase.PROVISIONING:
        state = State(FALSE, *(unschedulable(situation) or provisioning(obj)))
    else:
        return None
    return Step(
        conditions.waiting(state),
        situation.job.attempts,
        apply=_mended(situation),
        requeue_after=_poll(situation),
    )


def follow_driver(situation: Situation) -> Step | None:
    """The cluster is there: say what the driver does."""
    live = situation.live
    if live is None or situation.ray_job is None:
        return None
    ready = (
        f"All {situation.cluster.workers} workers were ready." if situation.cluster else "Ready."
    )
    attempt = live
    record = situation.record if situation.heard else None
    if record:
        attempt = replace(
            live,
            resumed_from_step=record.resumed_from_step or live.resumed_from_step,
            gpu_seconds=accounting.gpu_seconds(situation, until=None),
        )
    return Step(
        conditions.running(_driver(situation), ready),
        accounting.changed(situation.job.attempts, attempt),
        apply=_mended(situation),
        requeue_after=_poll(situation),
    )


RULES: tuple[Rule, ...] = (
    try_is_over,
    suspend,
    replace_changed,
    cannot_run,
    clean_up_first,
    begin_try,
    make_children,
    wait_for_machines,
    follow_driver,
)


def _accepted(situation: Situation) -> State:
    problem = situation.problem
    if problem is None:
        return conditions.ACCEPTED
    return State(FALSE, problem.reason, problem.message)


def _driver(situation: Situation) -> State:
    heard, record = situation.heard, situation.record
    if heard is None or record is None:
        return State(TRUE, Reason.STARTING, "The driver starts.")
    if seconds_between(heard, situation.now) >= silence_after(situation):
        message = f"The driver has told nothing since {to_text(heard)}; its head pod is there."
        return State(TRUE, Reason.DRIVER_SILENT, message)
    return State(TRUE, Reason.RUNNING, f"Stage {record.stage} runs." if record.stage else "Runs.")


def _end(situation: Situation, live: Attempt, ended: Outcome) -> Step:
    """A try is over. Its RayJob is deleted at the next look, once this is written down."""
    attempts = accounting.changed(situation.job.attempts, _closed(situation, live, ended))
    if ended.success:
        state = State(TRUE, Reason.SUCCEEDED, ended.message)
        return Step(conditions.over(state), attempts, requeue_after=0.0)
    again = ended.failure is None or (
        ended.failure == FailureClass.INFRASTRUCTURE
        and accounting.failures(attempts) <= situation.job.retries
    )
    if not again:
        return _fail(attempts, ended)
    states = conditions.over(_retry_state(attempts, situation.job.retries))
    return Step(states, attempts, requeue_after=0.0)


def _fail(attempts: tuple[Attempt, ...], ended: Outcome) -> Step:
    state = State(FALSE, ended.reason, ended.message)
    return Step(conditions.over(state), attempts, requeue_after=0.0)


def _closed(situation: Situation, live: Attempt, ended: Outcome) -> Attempt:
    record = situation.record
    known = replace(
        live,
        gpu_seconds=accounting.gpu_seconds(situation, until=situation.now),
        resumed_from_step=(record.resumed_from_step if record else None) or live.resumed_from_step,
    )
    return known.ended(situation.now, ended.reason, ended.message, failure=ended.failure)


def _retrying(situation: Situation) -> conditions.Conditions:
    """While the job waits for its next try, the reason why stays in sight."""
    last = situation.job.attempt
    if last is None or last.end is None or last.failure is None:
        return {}
    return {Condition.SUCCEEDED: _retry_state(situation.job.attempts, situation.job.retries)}


def _retry_state(attempts: tuple[Attempt, ...], retries: int) -> State:
    last = attempts[-1]
    if last.failure is None:
        return State(UNKNOWN, Reason.UNFINISHED, f"The job goes on: {last.message}")
    failed = accounting.failures(attempts)
    message = f"{last.message} The job is tried again ({failed} of {retries} retries)."
    return State(UNKNOWN, Reason.RETRYING, message)


def _mended(situation: Situation) -> tuple[Object, ...]:
    """Lasting children that are missing or were changed by someone."""
    if situation.cluster is None:
        return ()
    children = lasting_children(situation.job, situation.cluster, situation.config)
    return tuple(child for child in children if outdated(child, situation.observed.objects))


def _poll(situation: Situation) -> float:
    """A look now and then, though changes are told; and in time for what time itself decides."""
    limits = accounting.effective_limits(
        situation.job, situation.config.limits_in(situation.job.names.namespace)
    )
    due = [POLL_SECONDS]
    for minutes, since in (
        (limits.provisioning_minutes, provisioning_since(situation)),
        (limits.run_minutes, situation.ready_since),
    ):
        if minutes is not None and since is not None:
            due.append(minutes * 60 - seconds_between(since, situation.now))
    if situation.heard:
        due.append(silence_after(situation) - seconds_between(situation.heard, situation.now))
    return max(1.0, min(wait for wait in due if wait > 0))
