"""The whole operator: watch, queue, workers, probes, lease; one process, one loop."""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import kopf

from dreambooth_operator.config import Config
from dreambooth_operator.handlers import login, registry, settings
from dreambooth_operator.health import probes
from dreambooth_operator.kube.client import KubeClient, identity
from dreambooth_operator.kube.errors import KindNotServed, KubeError, NotFound
from dreambooth_operator.kube.kinds import JOB
from dreambooth_operator.kuberay import KubeRayCheck
from dreambooth_operator.lease import Lock, held
from dreambooth_operator.logs import about
from dreambooth_operator.metrics import Metrics
from dreambooth_operator.planner.observed import KubeRay
from dreambooth_operator.queue import Again, WorkQueue
from dreambooth_operator.reconcile import Reconciler
from dreambooth_operator.watch_health import WatchHealth

logger = logging.getLogger(__name__)

# How often the watch is checked against the API, and KubeRay is asked for while it is missing.
CHECK_SECONDS = 60.0
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class CannotStart(Exception):
    """The cluster lacks something without which the operator is of no use; says what to do."""


class StartAgain(Exception):
    """KubeRay was installed meanwhile: only a new start watches its objects."""


@dataclass
class Service:
    """Everything that runs, put together.

    Args:
        config: The settings.
        api: The cluster.
    """

    config: Config
    api: KubeClient
    queue: WorkQueue = field(default_factory=WorkQueue)
    metrics: Metrics = field(default_factory=Metrics)
    health: WatchHealth = field(default_factory=WatchHealth)
    kuberay: KubeRayCheck = field(default_factory=KubeRayCheck)

    async def run(self) -> None:
        """Run until SIGTERM.

        Raises:
            CannotStart: If the cluster does not know DreamBoothJobs.
            BaseExceptionGroup: If a part ends that must not end.
        """
        await self._check_api()
        if await self.kuberay.ask(self.api, self._own_namespace()) is not KubeRay.READY:
            logger.error("KubeRay 1.6 or newer is %s; jobs wait for it", self.kuberay.state.value)
        async with (
            probes(self.config.port, self.metrics, self._lag),
            held(self._lock()),
            asyncio.TaskGroup() as tasks,
        ):
            parts = [
                tasks.create_task(self.queue.run(self._look, self.config.concurrency)),
                tasks.create_task(self._check_regularly()),
            ]
            await self._watch(parts)

    async def _watch(self, parts: Sequence[asyncio.Task[None]]) -> None:
        """Kopf's informers, until SIGTERM; the other parts end before them."""
        told, stop = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        namespaces = self.config.watch_namespaces
        others = asyncio.all_tasks()
        informing = await kopf.spawn_tasks(
            registry=registry(self.queue, self.health),
            settings=settings(),
            # Otherwise kopf asks for the user's name, and images have none for the uid.
            identity=identity(),  # type: ignore[arg-type]
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=stop,
        )
        # After kopf's own, which would end the informers first.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told.set)
        informers = loop.create_task(kopf.run_tasks(informing, ignored=others))
        waiting = loop.create_task(told.wait())
        try:
            await asyncio.wait([informers, waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            stop.set()
            await informers

    async def _look(self, key: str) -> Again:
        self.metrics.queue_depth.set(self.queue.depth)
        reconciler = Reconciler(
            self.api, self.config, self.metrics, kuberay=lambda: self.kuberay.state
        )
        with about(key), self.metrics.seconds.time():
            try:
                again = await reconciler.look(key)
            except Exception:
                self.metrics.looks.labels("error").inc()
                raise
        self.metrics.looks.labels("ok").inc()
        return again

    async def _check_regularly(self) -> None:
        """Find what the watch missed, look at every job now and then, and ask for KubeRay."""
        loop = asyncio.get_running_loop()
        looked_at_all = loop.time()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            with suppress(KubeError):
                versions = await self._versions()
                missed = self.health.check(versions, loop.time())
                if loop.time() - looked_at_all >= self.config.resync_seconds:
                    looked_at_all, missed = loop.time(), set(versions)
                for key in missed:
                    self.queue.add(key)
            before = self.kuberay.state
            if before is KubeRay.READY:
                continue
            if await self.kuberay.ask(self.api, self._own_namespace()) is KubeRay.READY:
                logger.info("KubeRay is there now")
                if before is KubeRay.MISSING:
                    raise StartAgain

    async def _versions(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for namespace in self.config.watch_namespaces or (None,):
            found |= await self.api.versions(JOB, namespace)
        return found

    async def _check_api(self) -> None:
        try:
            await self._versions()
        except KindNotServed as error:
            raise CannotStart(
                "The cluster does not know DreamBoothJobs. Install crds/dreamboothjobs.yaml."
            ) from error
        except NotFound as error:
            raise CannotStart(f"A namespace of watchNamespaces is missing: {error}") from error

    def _lock(self) -> Lock | None:
        if not self.config.lease.enabled:
            return None
        return Lock(self.api, self.config.lease, own_namespace(), identity())

    def _own_namespace(self) -> str:
        """Where KubeRay may be asked for: a namespace that the operator may make RayJobs in."""
        return next(iter(self.config.watch_namespaces), own_namespace())

    def _lag(self) -> float:
        return self.health.lag(asyncio.get_running_loop().time())


def own_namespace() -> str:
    """The namespace of this pod; default outside of a cluster."""
    with suppress(OSError):
        return _NAMESPACE_FILE.read_text().strip()
    return os.environ.get("POD_NAMESPACE") or "default"


async def serve(config: Config) -> None:
    """Run the operator until SIGTERM.

    Raises:
        CannotStart: If the cluster lacks something.
        KubeError: If the cluster cannot be reached at start.
    """
    async with KubeClient(lambda: login(settings=settings())) as api:
        await Service(config, api).run()
