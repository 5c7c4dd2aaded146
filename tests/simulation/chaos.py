"""Worlds in which much goes wrong, at moments that a seed decides."""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

from dreambooth_operator.kube.kinds import Kind, Object, Ref
from tests.simulation.fake_api import Call, FakeApi
from tests.simulation.faults import FaultyLine
from tests.simulation.runs import COSTLY, differences, live, undisturbed
from tests.simulation.scenarios import Scenario
from tests.simulation.server import ApiServer, Change
from tests.simulation.world import World

T = TypeVar("T")

# So that people see a job train though little is heard of it.
SLOWNESS = 4
STALE_SECONDS = 3.0


@dataclass
class SlowLine(FaultyLine):
    """Requests and answers take their time."""

    dice: random.Random = field(default_factory=random.Random)

    async def carry(self, call: Call, perform: Callable[[], T]) -> T:
        """See `Line`."""
        self.calls.append(call)
        await asyncio.sleep(self.dice.random())
        try:
            return perform()
        finally:
            await asyncio.sleep(self.dice.random())


class StaleApi(FakeApi):
    """An API whose reads may be a few seconds old."""

    def __init__(self, server: ApiServer, line: FaultyLine, dice: random.Random) -> None:
        super().__init__(server, line)
        self._past = server
        self._dice = dice

    async def get(self, ref: Ref) -> Object:
        """See `KubeApi`."""
        current = await super().get(ref)
        moment = self._past.now() - timedelta(seconds=self._dice.random() * STALE_SECONDS)
        return self._past.as_of(ref, moment) or current

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str]
    ) -> list[Object]:
        """See `KubeApi`."""
        await super().list(kind, namespace, labels)
        moment = self._past.now() - timedelta(seconds=self._dice.random() * STALE_SECONDS)
        refs = [ref for ref in self._past.past if ref.kind == kind]
        found = [obj for ref in refs if (obj := self._past.as_of(ref, moment))]
        return [obj for obj in found if labels.items() <= obj["metadata"].get("labels", {}).items()]


def lose_events(world: World, dice: random.Random) -> None:
    """The watch does not tell of half of what happens."""

    def deliver(change: Change, kind: Kind, obj: Object) -> None:
        if dice.random() < 0.5:
            world.tell(change, kind, obj)

    world.deliver = deliver


def lose_all_events(world: World, dice: random.Random) -> None:
    """The watch is dead and nobody knows."""
    world.deliver = lambda change, kind, obj: None


def confuse_events(world: World, dice: random.Random) -> None:
    """The watch tells some things again and again, all of it late and in any order."""

    def deliver(change: Change, kind: Kind, obj: Object) -> None:
        for _ in range(dice.randint(1, 3)):
            delay = dice.random() * 10
            asyncio.get_running_loop().call_later(delay, world.tell, change, kind, obj)

    world.deliver = deliver


def read_stale(world: World, dice: random.Random) -> None:
    """Reads are answered from the past."""
    world.connect = lambda server, line: StaleApi(server, line, dice)


def start_a_second(world: World, dice: random.Random) -> None:
    """Another operator does the same, at its own pace."""
    world.start_operator(SlowLine(dice=dice))


def crash_now_and_then(world: World, dice: random.Random) -> None:
    """The operator dies every few seconds, in the midst of whatever it does."""

    def kill() -> None:
        operator = world.operators[-1]
        if operator.alive:
            operator.line.die()
        loop.call_later(5 + dice.random() * 15, kill)

    loop = asyncio.get_event_loop()
    loop.call_later(dice.random() * 10, kill)


KINDS_OF_CHAOS: tuple[Callable[[World, random.Random], None], ...] = (
    lose_events,
    lose_all_events,
    confuse_events,
    read_stale,
    start_a_second,
    crash_now_and_then,
)


def chaotic(
    scenario: Scenario, chaos: Callable[[World, random.Random], None], seed: int
) -> list[str]:
    """What is wrong after a life in chaos, in words."""
    slow = replace(
        scenario,
        lives=tuple(replace(life, seconds=life.seconds * SLOWNESS) for life in scenario.lives),
    )
    dice = random.Random(seed)
    try:
        found = live(slow, SlowLine(dice=dice), lambda world: chaos(world, dice))
    except AssertionError as error:
        return [str(error)]
    return differences(undisturbed(slow), found, times=2, once=COSTLY)
