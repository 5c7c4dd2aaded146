"""Everything that rules decide by, and the steps they decide on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from dreambooth_operator.children.cluster import Cluster
from dreambooth_operator.clock import from_text
from dreambooth_operator.config import Config
from dreambooth_operator.job import Attempt, Job
from dreambooth_operator.kube.kinds import Object
from dreambooth_operator.kube.port import Event
from dreambooth_operator.planner.acceptance import Problem, obstacle, resolve
from dreambooth_operator.planner.observed import Observed, created, name_of
from dreambooth_operator.planner.ray_state import RayState, ray_state
from dreambooth_operator.planner.record import Record, parse_record
from dreambooth_operator.reasons import Condition, Reason

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"


@dataclass(frozen=True)
class Situation:
    """One job at one moment."""

    job: Job
    observed: Observed
    now: datetime
    config: Config

    @cached_property
    def resolved(self) -> Cluster | Problem:
        """The machines that the job asks for, by the settings alone."""
        return resolve(self.job, self.config)

    @cached_property
    def cluster(self) -> Cluster | None:
        """The machines, or None if the settings do not have them."""
        return None if isinstance(self.resolved, Problem) else self.resolved

    @cached_property
    def problem(self) -> Problem | None:
        """Why the job cannot run now."""
        if isinstance(self.resolved, Problem):
            return self.resolved
        return obstacle(self.job, self.resolved, self.observed)

    @cached_property
    def live(self) -> Attempt | None:
        """The try that goes on, by what was written down."""
        last = self.job.attempt
        return last if last and last.end is None else None

    @cached_property
    def ray_job(self) -> Object | None:
        """The RayJob of the try that goes on."""
        return self.observed.ray_job(self.live.ray_job) if self.live else None

    @cached_property
    def ray(self) -> RayState | None:
        """What KubeRay says of it."""
        return ray_state(self.ray_job) if self.ray_job else None

    @cached_property
    def strays(self) -> tuple[Object, ...]:
        """RayJobs other than that of the try that goes on."""
        current = self.live.ray_job if self.live else None
        return tuple(obj for obj in self.observed.ray_jobs if name_of(obj) != current)

    @cached_property
    def record(self) -> Record | None:
        """What the driver of the current or last try told; nobody knows the future."""
        record = parse_record(self.observed.progress(self.job))
        last = self.job.attempt
        if record is None or last is None or record.attempt != last.number:
            return None
        return record

    @cached_property
    def heard(self) -> datetime | None:
        """When the driver in the present RayJob last told something."""
        born = created(self.ray_job) if self.ray_job else None
        if self.record is None or (born and self.record.update < born):
            return None
        return min(self.record.update, self.now)

    @cached_property
    def ready_since(self) -> datetime | None:
        """When the present cluster became ready, as it was written down."""
        ready = self.job.condition(Condition.CLUSTER_READY)
        if not self.live or ready.get("status") != TRUE:
            return None
        return from_text(ready.get("lastTransitionTime"))

    @property
    def gpus(self) -> int | None:
        """GPUs that a try holds; None if the settings no longer say."""
        return self.cluster.gpus if self.cluster else None


@dataclass(frozen=True)
class State:
    """What a condition says."""

    status: str
    reason: Reason | str
    message: str


@dataclass(frozen=True)
class Step:
    """What a rule decided.

    Attributes:
        conditions: Those that the rule has something to say about; others stay.
        attempts: All tries, with what has changed.
        apply: Objects to apply, first things first.
        events: To tell beside those that follow from changed conditions.
        requeue_after: Seconds until the next look.
    """

    conditions: Mapping[Condition, State]
    attempts: tuple[Attempt, ...]
    apply: tuple[Object, ...] = ()
    events: tuple[Event, ...] = field(default=())
    requeue_after: float | None = None


Rule = Callable[[Situation], Step | None]
"""Decides on a step, or leaves it to the rules after it."""
