"""Look at one job: observe, plan, carry out, write status last and only if it differs."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from dreambooth_operator.children.intent import lasting_refs
from dreambooth_operator.config import Config
from dreambooth_operator.job import Job, parse_job
from dreambooth_operator.kube.errors import (
    Conflict,
    Forbidden,
    Invalid,
    KindNotServed,
    KubeError,
    NotFound,
)
from dreambooth_operator.kube.kinds import JOB, POD, RAY_JOB, Object, Ref, ref_of
from dreambooth_operator.kube.port import Event, KubeApi
from dreambooth_operator.names import RAY_NODE_TYPE_LABEL
from dreambooth_operator.planner.acceptance import needed
from dreambooth_operator.planner.observed import KubeRay, Observed, labels_of
from dreambooth_operator.planner.plan import Plan
from dreambooth_operator.planner.planning import finished, plan
from dreambooth_operator.planner.refusal import refused
from dreambooth_operator.queue import Again
from dreambooth_operator.reasons import Condition

logger = logging.getLogger(__name__)

# Between two looks at one job that follow from each other.
SOON = 1.0

Clock = Callable[[], datetime]


class Watcher(Protocol):
    """Whoever counts what happens."""

    def seen(self, job: Job) -> None:
        """A job was looked at."""

    def gone(self, key: str) -> None:
        """A job does not exist any more."""

    @property
    def busy(self) -> int:
        """Jobs that have machines or wait for them."""


@dataclass
class Reconciler:
    """Brings jobs forward, one look at a time. It keeps nothing between two looks.

    Args:
        api: The Kubernetes API.
        config: The settings.
        watcher: Is told what is seen.
        kuberay: What is known of KubeRay's version.
        clock: The time.
    """

    api: KubeApi
    config: Config
    watcher: Watcher
    kuberay: Callable[[], KubeRay] = lambda: KubeRay.READY
    clock: Clock = field(default=lambda: datetime.now(UTC))

    async def look(self, key: str) -> Again:
        """Look at the job `namespace/name` and do what is to be done next.

        Raises:
            KubeError: If the API did not do what it was asked; what could be done is done.
        """
        namespace, _, name = key.partition("/")
        try:
            job = parse_job(await self.api.get(Ref(JOB, namespace, name)))
        except NotFound:
            self.watcher.gone(key)
            return Again()
        self.watcher.seen(job)
        observed = await self._observe(job)
        decided = plan(job, observed, self.clock(), self.config)
        await self._carry_out(job, decided)
        if decided.status is not None:
            return Again(SOON)
        after = decided.requeue_after
        return Again(None if after is None else max(SOON, after))

    async def _observe(self, job: Job) -> Observed:
        """Everything that the job's next step depends on, read now."""
        namespace, selector = job.names.namespace, job.names.selector
        kuberay = self.kuberay()
        try:
            ray_jobs = await self.api.list(RAY_JOB, namespace, selector)
        except KindNotServed:
            ray_jobs, kuberay = [], KubeRay.MISSING
        if finished(job) or job.deleting:
            return Observed(ray_jobs=tuple(ray_jobs), kuberay=kuberay)
        refs = [*lasting_refs(job.names), *needed(job, self.config)]
        head = {RAY_NODE_TYPE_LABEL: "head"}
        # A cluster may have hundreds of pods: once it is there, only its head matters.
        ready = job.condition(Condition.CLUSTER_READY).get("status") == "True"
        objects, pods = await asyncio.gather(
            self._get_all(dict.fromkeys(refs)),
            self.api.list(POD, namespace, selector | head if ready else selector),
        )
        return Observed(
            objects=objects,
            ray_jobs=tuple(ray_jobs),
            heads=tuple(pod for pod in pods if head.items() <= labels_of(pod).items()),
            kuberay=kuberay,
            busy=self.watcher.busy,
            pods=() if ready else tuple(pods),
        )

    async def _get_all(self, refs: Iterable[Ref]) -> dict[Ref, Object]:
        wanted = list(refs)
        found = await asyncio.gather(*(self._get(ref) for ref in wanted))
        return {ref: obj for ref, obj in zip(wanted, found, strict=True) if obj is not None}

    async def _get(self, ref: Ref) -> Object | None:
        try:
            return await self.api.get(ref)
        except NotFound:
            return None

    async def _carry_out(self, job: Job, decided: Plan) -> None:
        """Status is written even if the rest fails: it says what was seen, not what was done."""
        problem: KubeError | None = None
        try:
            await self._write_children(decided)
        except KubeError as error:
            problem = error
        if isinstance(problem, Forbidden | Invalid):
            decided = refused(job, decided, problem.message, self.clock())
        if decided.status is not None:
            await self._write_status(job, decided.status)
            for event in decided.events:
                await self._tell(job, event)
        if problem is not None:
            raise problem

    async def _write_children(self, decided: Plan) -> None:
        for obj in decided.apply:
            logger.info("applying %s", ref_of(obj))
            await self.api.apply(obj)
        for deletion in decided.delete:
            logger.info("deleting %s", deletion.ref)
            try:
                await self.api.delete(deletion.ref, deletion.uid)
            except (NotFound, Conflict):
                # Gone already, or another object by now, which the next look will see.
                continue

    async def _write_status(self, job: Job, status: Object) -> None:
        """Write only upon the very state that was observed, so that two operators cannot differ."""
        obj = JOB.new(job.names.namespace, job.names.job, status=status)
        obj["metadata"] |= {"uid": job.names.uid, "resourceVersion": job.resource_version}
        await self.api.apply_status(obj)

    async def _tell(self, job: Job, event: Event) -> None:
        try:
            await self.api.event(job.raw, event)
        except KubeError as error:
            # Nothing depends on events.
            logger.warning("event %s was not told: %s", event.reason, error)
