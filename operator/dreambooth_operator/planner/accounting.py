"""GPU-seconds and tries: what was used, what is kept of it, and how long to wait for the next."""

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

from dreambooth_operator.clock import seconds_between
from dreambooth_operator.config import Backoff, Limits
from dreambooth_operator.job import Attempt, Job
from dreambooth_operator.names import MAX_ATTEMPTS
from dreambooth_operator.planner.situation import Situation
from dreambooth_operator.reasons import FailureClass, Reason

# As many as status has room for.
MAX_KEPT = 32


def gpu_seconds(situation: Situation, *, until: datetime | None) -> float | None:
    """GPU-seconds of the current or last try; None if nothing is known.

    The driver counts best. After its last word, and for a try of which it never told anything,
    time is taken that the machines were there.

    Args:
        situation: The job.
        until: When the try ended, or None while it goes on.
    """
    attempt, record, gpus = situation.job.attempt, situation.record, situation.gpus
    if attempt is None:
        return None
    used = record.gpu_seconds if record else None
    if until is not None and gpus is not None:
        if record is not None and not record.over:
            used = (used or 0.0) + seconds_between(record.update, until) * gpus
        elif record is None:
            used = _ready_seconds(situation, until) * gpus
    if used is None:
        return attempt.gpu_seconds
    if gpus is not None:
        # Nobody can have used more than was there.
        used = min(used, seconds_between(attempt.start, until or situation.now) * gpus)
    return round(max(used, attempt.gpu_seconds or 0.0), 1)


def _ready_seconds(situation: Situation, until: datetime) -> float:
    ray = situation.ray
    if situation.ready_since:
        return seconds_between(situation.ready_since, until)
    if ray and ray.ran_from:
        return seconds_between(ray.ran_from, ray.ran_to or until)
    return 0.0


def total_gpu_seconds(attempts: tuple[Attempt, ...]) -> float:
    """GPU-seconds of all tries."""
    return round(sum(attempt.gpu_seconds or 0.0 for attempt in attempts), 1)


def effective_limits(job: Job, admin: Limits) -> Limits:
    """The lower of the job's limits and the administrator's, each."""
    own = job.limits
    return Limits(
        gpu_hours=min((x for x in (own.gpu_hours, admin.gpu_hours) if x), default=None),
        provisioning_minutes=min(
            (x for x in (own.provisioning_minutes, admin.provisioning_minutes) if x), default=None
        ),
        run_minutes=min((x for x in (own.run_minutes, admin.run_minutes) if x), default=None),
    )


def failures(attempts: tuple[Attempt, ...]) -> int:
    """How often machines failed so far."""
    return sum(attempt.failure == FailureClass.INFRASTRUCTURE for attempt in attempts)


def next_start(job: Job, backoff: Backoff) -> datetime | None:
    """When the next try may begin; None for at once.

    After a failure the wait doubles each time. The jitter follows from the job's uid and the try,
    so that everyone who works it out comes to the same, and many jobs do not come back at once.
    """
    last = job.attempt
    if last is None or last.end is None or last.failure is None:
        return None
    doubled = backoff.first_seconds * 2 ** min(failures(job.attempts) - 1, 16)
    digest = hashlib.sha256(f"{job.names.uid}/{last.number}".encode()).digest()
    jitter = 0.8 + 0.4 * int.from_bytes(digest[:4], "big") / 2**32
    return last.end + timedelta(seconds=round(min(doubled, backoff.max_seconds) * jitter))


def begun(job: Job, now: datetime) -> tuple[Attempt, ...]:
    """The tries with one more, which begins now."""
    number = job.attempt.number + 1 if job.attempt else 1
    attempt = Attempt(number=number, ray_job=job.names.ray_job(number), start=now)
    return _compact((*job.attempts, attempt))


def exhausted(job: Job) -> bool:
    """Whether there is no number left for another try."""
    return job.attempt is not None and job.attempt.number >= MAX_ATTEMPTS


def changed(attempts: tuple[Attempt, ...], last: Attempt) -> tuple[Attempt, ...]:
    """The tries with another state of the last one."""
    return (*attempts[:-1], last)


def _compact(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """At most `MAX_KEPT` tries: the oldest that did not fail are put together, with their use.

    Failures are counted, so each stays. There are at most 21 of them (20 retries and the last).
    """
    while len(attempts) > MAX_KEPT:
        quiet = [at for at, one in enumerate(attempts[:-1]) if one.failure is None]
        if len(quiet) < 2:
            return attempts[-MAX_KEPT:]
        first, second = attempts[quiet[0]], attempts[quiet[1]]
        merged = replace(
            second,
            start=first.start,
            gpu_seconds=round((first.gpu_seconds or 0.0) + (second.gpu_seconds or 0.0), 1),
            reason=str(Reason.EARLIER_ATTEMPTS),
            message=f"Stands for all tries up to {second.number} that did not fail.",
        )
        kept = [one for one in attempts if one not in (first, second)]
        attempts = tuple(sorted([merged, *kept], key=lambda one: one.number))
    return attempts
