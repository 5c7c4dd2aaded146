"""Prometheus metrics, and the one place that remembers jobs: what they were at the last look."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dreambooth_operator.job import Job

_ACTIVE = ("Queued", "Provisioning", "Running", "Retrying", "Suspending")
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True)
class _Last:
    """What is remembered of a job."""

    phase: str
    stage: str
    gpu_seconds: float
    ended: int


class Metrics:
    """Counts what the reconciler sees; a `reconcile.Watcher`.

    Jobs that were seen for the first time count into gauges only, so that a restart of the operator
    counts nothing twice.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._jobs: dict[str, _Last] = {}
        self.looks = Counter(
            "dreambooth_reconciles",
            "Looks at jobs, by how they ended.",
            ["result"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "dreambooth_reconcile_seconds",
            "Time that a look at a job took.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.attempts = Counter(
            "dreambooth_attempts_ended",
            "Tries that ended, by failure class (none if it did not fail) and reason.",
            ["failure", "reason"],
            registry=self.registry,
        )
        self.gpu_seconds = Counter(
            "dreambooth_gpu_seconds",
            "GPU-seconds that jobs used while this operator watched.",
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "dreambooth_queue_depth", "Jobs that are due to be looked at.", registry=self.registry
        )
        self.watch_lag = Gauge(
            "dreambooth_watch_lag_seconds",
            "For how long changes of jobs have not been heard of; 0 if all were.",
            registry=self.registry,
        )
        self._phases = Gauge("dreambooth_jobs", "Jobs by phase.", ["phase"], registry=self.registry)
        self._stages = Gauge(
            "dreambooth_jobs_running",
            "Jobs that run, by stage.",
            ["stage"],
            registry=self.registry,
        )

    @property
    def busy(self) -> int:
        """Jobs that have machines or wait for them."""
        return sum(last.phase in _ACTIVE for last in self._jobs.values())

    def seen(self, job: Job) -> None:
        """A job was looked at."""
        ended = [attempt for attempt in job.attempts if attempt.end is not None]
        used = job.status.get("gpuSeconds")
        now = _Last(
            phase=str(job.status.get("phase") or "Pending"),
            stage=str(job.status.get("stage") or ""),
            gpu_seconds=float(used) if isinstance(used, int | float) else 0.0,
            ended=ended[-1].number if ended else 0,
        )
        before = self._jobs.get(job.key)
        self._jobs[job.key] = now
        self._count(before, -1)
        self._count(now, 1)
        if before is None:
            return
        self.gpu_seconds.inc(max(0.0, now.gpu_seconds - before.gpu_seconds))
        for attempt in ended:
            if attempt.number > before.ended:
                self.attempts.labels(attempt.failure or "none", attempt.reason or "").inc()

    def gone(self, key: str) -> None:
        """A job does not exist any more."""
        self._count(self._jobs.pop(key, None), -1)

    def _count(self, job: _Last | None, change: int) -> None:
        if job is None:
            return
        self._phases.labels(job.phase).inc(change)
        if job.phase == "Running" and job.stage:
            self._stages.labels(job.stage).inc(change)
