"""A whole world in virtual time: API server, KubeRay, nodes, people and operators."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dreambooth_operator.config import Config
from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import (
    CONFIG_MAP,
    EVENT,
    JOB,
    RAY_JOB,
    Kind,
    Object,
    Ref,
)
from dreambooth_operator.kube.port import KubeApi
from dreambooth_operator.names import JOB_LABEL
from dreambooth_operator.queue import WorkQueue
from dreambooth_operator.reconcile import Reconciler
from dreambooth_operator.service import CHECK_SECONDS
from dreambooth_operator.watch_health import WatchHealth
from tests.simulation.fake_api import FakeApi
from tests.simulation.faults import FaultyLine
from tests.simulation.kuberay import KubeRay
from tests.simulation.machines import Life, Nodes
from tests.simulation.server import ApiServer, Change
from tests.simulation.settings import CONFIG
from tests.simulation.virtual_time import VirtualLoop

# Longer than any wait of the operator between two writes that follow from each other.
QUIET_SECONDS = 200
LONGEST_SECONDS = 4 * 3600
RESTART_SECONDS = 5
# KubeRay looks every three seconds.
LOOK_SECONDS = 2
PERSON = "kubectl"

WATCHED = (JOB, RAY_JOB, CONFIG_MAP)

Delivery = Callable[[Change, Kind, Object], None]
Script = Callable[["World"], Awaitable[None]]


class Unwatched:
    """Nobody counts what the reconciler sees."""

    busy = 1

    def seen(self, job: Job) -> None:
        """See `Watcher`."""

    def gone(self, key: str) -> None:
        """See `Watcher`."""


@dataclass
class Operator:
    """One process of the operator: its memory is the queue, and it goes with the process."""

    world: "World"
    line: FaultyLine
    config: Config = CONFIG
    queue: WorkQueue = field(default_factory=WorkQueue)
    health: WatchHealth = field(default_factory=WatchHealth)
    alive: bool = True
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        """Begin to watch and to work."""
        api = self.world.connect(self.world.server, self.line)
        reconciler = Reconciler(api, self.config, Unwatched(), clock=self.world.now)
        work = self.queue.run(reconciler.look, workers=2)
        self._tasks = [asyncio.ensure_future(work), asyncio.ensure_future(self._check())]
        # A watch begins with all there is.
        for kind in WATCHED:
            for obj in self.world.server.find_all(kind):
                self.hear("ADDED", obj)

    def hear(self, change: Change, obj: Object) -> None:
        """The watch tells of an object."""
        key = key_of(obj)
        if not self.alive or key is None:
            return
        if obj["kind"] == JOB.name and change == "DELETED":
            self.health.lose(key)
        elif obj["kind"] == JOB.name:
            self.health.hear(key, obj["metadata"]["resourceVersion"])
        self.queue.add(key)

    def kill(self) -> None:
        """End it at once, as SIGKILL does."""
        self.alive = False
        for task in self._tasks:
            task.cancel()

    async def _check(self) -> None:
        """Find what the watch did not tell, and look at all jobs now and then, as `Service`."""
        loop = asyncio.get_running_loop()
        looked_at_all = loop.time()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            jobs = self.world.server.find_all(JOB)
            versions = {str(key_of(job)): job["metadata"]["resourceVersion"] for job in jobs}
            missed = self.health.check(versions, loop.time())
            if loop.time() - looked_at_all >= self.config.resync_seconds:
                looked_at_all, missed = loop.time(), set(versions)
            for key in missed:
                self.queue.add(key)


def key_of(obj: Object) -> str | None:
    """The key of the job that an object is about, if the operator watches it."""
    if obj["kind"] not in {kind.name for kind in WATCHED}:
        return None
    metadata = obj["metadata"]
    name = (
        metadata["name"] if obj["kind"] == JOB.name else metadata.get("labels", {}).get(JOB_LABEL)
    )
    return f"{metadata['namespace']}/{name}" if name else None


class World:
    """Everything there is.

    Args:
        loop: Tells the time.
        lives: How the drivers of the tries fare.

    Attributes:
        connect: How operators reach the API.
        deliver: How they are told of changes.
        operators: All that ever ran.
    """

    def __init__(self, loop: VirtualLoop, lives: tuple[Life, ...] = (Life(),)) -> None:
        self._loop = loop
        self.server = ApiServer(loop.now)
        self.nodes = Nodes(self.server, loop.now, lives)
        self.kuberay = KubeRay(self.server, loop.now, self.nodes)
        self.operators: list[Operator] = []
        self.connect: Callable[[ApiServer, FaultyLine], KubeApi] = FakeApi
        self.deliver: Delivery = self.tell
        self.server.watchers.append(lambda *change: self.deliver(*change))
        self._machine_room = asyncio.ensure_future(self._keep_going())
        self._changes = 0
        self._stir = asyncio.Event()

    def now(self) -> datetime:
        """The time."""
        return self._loop.now()

    def start_operator(self, line: FaultyLine | None = None, config: Config = CONFIG) -> Operator:
        """Start an operator; one that the line kills is started anew, as a Deployment does it."""
        line = line or FaultyLine()
        operator = Operator(self, line, config)

        def die() -> None:
            self._loop.call_soon(self._replace, operator)

        line.die = die
        self.operators.append(operator)
        operator.start()
        return operator

    async def until(self, true: Callable[[], Any], seconds: float = LONGEST_SECONDS) -> None:
        """Let time pass until something holds.

        Raises:
            AssertionError: If it still does not after a long time.
        """
        end = self._loop.time() + seconds
        while not true():
            assert self._loop.time() < end, f"still not after {seconds:g} s: {self.story()}"
            await self._pass(1)

    async def until_rest(self, quiet: float = QUIET_SECONDS) -> None:
        """Let time pass until nothing has changed for so many seconds, and nothing runs."""
        end = self._loop.time() + LONGEST_SECONDS
        quiet_since, seen = self._loop.time(), self._changes
        while self._loop.time() - quiet_since < quiet or self.nodes.running:
            assert self._loop.time() < end, f"no rest: {self.story()}"
            await self._pass(4)
            if self._changes != seen:
                quiet_since, seen = self._loop.time(), self._changes

    def job(self, name: str = "rex") -> Object | None:
        """A job, if it exists."""
        return self.server.find(Ref(JOB, "default", name))

    def status(self, name: str = "rex") -> Object:
        """A job's status, empty where there is none."""
        found: Object = (self.job(name) or {}).get("status", {})
        return found

    def story(self) -> str:
        """What `kubectl describe` tells, for messages of failed tests."""
        events = [f"{e['reason']}: {e['message']}" for e in self.server.find_all(EVENT)]
        there = [str(ref) for ref in self.server.refs() if ref.kind != EVENT]
        return f"status {self.status()}; events {events}; objects {there}"

    def close(self) -> None:
        """End everybody."""
        self._machine_room.cancel()
        for operator in self.operators:
            operator.kill()

    def tell(self, change: Change, kind: Kind, obj: Object) -> None:
        """Let every operator's watch tell of a change."""
        for operator in self.operators:
            operator.hear(change, obj)

    def _replace(self, operator: Operator) -> None:
        operator.kill()
        self._loop.call_later(RESTART_SECONDS, self.start_operator, None, operator.config)

    async def _pass(self, seconds: float) -> None:
        if self._machine_room.done():
            self._machine_room.result()
        await asyncio.sleep(seconds)

    async def _keep_going(self) -> None:
        """What runs beside the operator; it sleeps until something changes when all is done."""
        self.server.watchers.append(self._count)
        while True:
            seen = self._changes
            self.nodes.live()
            self.kuberay.look()
            while self.server.collect_garbage():
                pass
            running = self.nodes.running
            assert len(running) == len({name.rsplit("-", 1)[0] for name in running}), (
                f"two tries of a job at once: {running}"
            )
            if self._changes == seen and not self.kuberay.busy:
                self._stir.clear()
                await self._stir.wait()
            await asyncio.sleep(LOOK_SECONDS)

    def _count(self, change: Change, kind: Kind, obj: Object) -> None:
        self._changes += 1
        self._stir.set()


@contextmanager
def a_world(*lives: Life) -> Iterator[tuple[VirtualLoop, World]]:
    """A world of its own, in which nothing outlives the block."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    logger = logging.getLogger("dreambooth_operator")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)

    async def make() -> World:
        return World(loop, lives or (Life(),))

    # The jitter of waits is the same every time.
    random.seed(0)
    world = loop.run_until_complete(make())
    try:
        yield loop, world
    finally:
        logger.setLevel(level)
        world.close()
        pending = asyncio.all_tasks(loop)
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
