"""How training workers hear what to do and tell the driver where they are.

A small actor takes rows from rank 0 and hands them to a thread of the driver, which waits inside
the actor instead of polling. Rows are fire-and-forget: training never waits for a listener. Workers
that were started ahead wait in the same actor for their plan.
"""

import asyncio
import contextlib
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dreambooth import spans

Row = dict[str, Any]
# Steps faster than this are reported together.
REPORT_INTERVAL_SECONDS = 0.5
DELIVERY_SECONDS = 120.0
# What a training waits for the last of its timeline to arrive; it does without if need be.
LAST_SECONDS = 5.0
# The driver says anew after this long what the plan is: an actor that was lost has forgotten it.
TAKE_SECONDS = 10.0


@ray.remote(num_cpus=0)
class _Relay:
    """Holds rows until the driver takes them, and the plan, pickled, once the driver has given it.

    `given` is empty as long as there is none; it holds None when there is nothing left to do.
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._closed = False
        self._news = asyncio.Event()
        self._plan: bytes | None = None
        self._given = asyncio.Event()

    async def push(self, row: Row) -> None:
        self._rows.append(row)
        self._news.set()

    async def give(self, given: list[bytes | None]) -> None:
        if given:
            [self._plan] = given
            self._given.set()

    async def plan(self) -> bytes | None:
        await self._given.wait()
        return self._plan

    async def close(self) -> None:
        self._closed = True
        self._news.set()

    async def take(self, given: list[bytes | None]) -> tuple[list[Row], bool]:
        await self.give(given)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), TAKE_SECONDS)
        rows, self._rows = self._rows, []
        if not self._closed:
            self._news.clear()
        return rows, self._closed


class Relay:
    """The driver's end: calls `listener` for every row until it is closed."""

    def __init__(self, listener: Callable[[Row], None]) -> None:
        # Its process may be lost like any other; a few reports are then, the training is not. It
        # lives where the driver does: machines of workers come and go.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.actor = _Relay.options(  # type: ignore[attr-defined]
            max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
        ).remote()
        self._listener = listener
        self._given: list[bytes | None] = []
        self._thread = threading.Thread(target=self._listen, name="training-relay", daemon=True)
        self._thread.start()

    def give(self, plan: Any) -> None:
        """Gives waiting workers their plan; None sends them home."""
        self._given = [None if plan is None else pickle.dumps(plan)]
        with contextlib.suppress(ray.exceptions.RayError):
            # Who asks from now on is told this, not what was given before.
            ray.get(self.actor.give.remote(self._given))

    def close(self) -> None:
        """Delivers what is still on its way and stops."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self.actor.close.remote())
        self._thread.join()
        ray.kill(self.actor)

    def _listen(self) -> None:
        closed = False
        while not closed:
            try:
                rows, closed = ray.get(self.actor.take.remote(self._given))
            except ray.exceptions.RayError:
                return
            for row in rows:
                self._listener(row)


class PlanToCome:
    """What the driver gives the workers to do, once it does."""

    def __init__(self, actor: Any) -> None:
        self._given = actor.plan.remote().future()

    def has_come(self) -> bool:
        """Whether nobody has to wait for it any more."""
        return bool(self._given.done())

    def wait(self) -> Any:
        """The plan; None if there is nothing to do."""
        given = self._given.result()
        return None if given is None else pickle.loads(given)


class Telemetry:
    """The worker's end; only rank 0 speaks, but of what it did each worker tells."""

    def __init__(self, actor: Any, *, speaks: bool) -> None:
        self._actor = actor
        self._speaks = speaks
        self._last = 0.0

    def step(self, step: int, loss: float) -> None:
        """Reports a finished step, unless the last report was a moment ago."""
        now = time.monotonic()
        if now - self._last >= REPORT_INTERVAL_SECONDS:
            self._last = now
            self.send({"step": step, "loss": loss})

    def send(self, row: Row) -> None:
        """Sends a row now."""
        if self._speaks:
            self._actor.push.remote(row)

    def tell_spans(self) -> None:
        """Sends what this process did since the last time; every worker does."""
        if lanes := spans.take():
            self._actor.push.remote({"spans": lanes})

    def last_spans(self) -> None:
        """Sends them and waits a moment: the worker's process may end with this."""
        if lanes := spans.take():
            arrived = self._actor.push.remote({"spans": lanes})
            with contextlib.suppress(Exception):
                arrived.future().result(timeout=LAST_SECONDS)

    def done(self) -> None:
        """Says that there is nothing left to do but to leave."""
        self.send({"done": True})

    def fail(self, error: Exception) -> None:
        """Sends what ended the training, and waits: the worker's process may end with it."""
        if self._speaks:
            arrived = self._actor.push.remote({"error": error})
            arrived.future().result(timeout=DELIVERY_SECONDS)
