"""The work queue: keys of jobs to look at, each at most once in it, one worker a key.

What happens while a job is being looked at puts its key back for one more look. A look that failed
is repeated after a time that doubles, with jitter; one that wants a later look says when.
"""

import asyncio
import heapq
import itertools
import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 120.0


@dataclass(frozen=True)
class Again:
    """What a look at a job asks for.

    Attributes:
        after: Seconds until the next look, or None if nothing is due.
    """

    after: float | None = None


Work = Callable[[str], Awaitable[Again]]
"""Looks at the job with this key; what it raises is answered with a later try."""


@dataclass
class WorkQueue:
    """Keys to work on.

    Attributes:
        waiting: Keys that are due, in the order they became so.
        busy: Keys that are being worked on.
    """

    waiting: dict[str, None] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    _again: set[str] = field(default_factory=set)
    _due: dict[str, float] = field(default_factory=dict)
    _timers: list[tuple[float, int, str]] = field(default_factory=list)
    _failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)

    def add(self, key: str) -> None:
        """Look at a job soon; once, however often it is said before the look begins."""
        self._due.pop(key, None)
        if key in self.busy:
            self._again.add(key)
        else:
            self.waiting[key] = None
            self._wake.set()

    def add_after(self, key: str, seconds: float) -> None:
        """Look at a job after a while, or earlier if it was to be looked at earlier."""
        if seconds <= 0:
            self.add(key)
            return
        due = asyncio.get_running_loop().time() + seconds
        if key in self.waiting or key in self._again or self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._timers, (due, next(self._order), key))
        self._wake.set()

    def forget(self, key: str) -> None:
        """Drop what is known of a job that is gone."""
        self._failures.pop(key, None)
        self._due.pop(key, None)

    @property
    def depth(self) -> int:
        """Keys that are due and not worked on."""
        return len(self.waiting)

    async def run(self, work: Work, workers: int) -> None:
        """Work until cancelled, on at most `workers` keys at the same time."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(workers):
                tasks.create_task(self._worker(work))

    async def _worker(self, work: Work) -> None:
        while True:
            key = await self._next()
            self.busy.add(key)
            try:
                await self._look(work, key)
            finally:
                self.busy.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _look(self, work: Work, key: str) -> None:
        try:
            again = await work(key)
        except Exception:
            self._failures[key] += 1
            wait = backoff(self._failures[key])
            logger.exception("looking at %s failed; again in %.1f s", key, wait)
            self.add_after(key, wait)
            return
        self._failures.pop(key, None)
        if again.after is not None:
            self.add_after(key, again.after)

    async def _next(self) -> str:
        """The key that has waited longest."""
        while True:
            now = asyncio.get_running_loop().time()
            self._release(now)
            if self.waiting:
                key = next(iter(self.waiting))
                del self.waiting[key]
                return key
            self._wake.clear()
            timeout = self._timers[0][0] - now if self._timers else None
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _release(self, now: float) -> None:
        """Move keys whose time has come; a timer that was overtaken has another due time."""
        while self._timers and self._timers[0][0] <= now:
            due, _, key = heapq.heappop(self._timers)
            if self._due.get(key) == due:
                self.add(key)


def backoff(failures: int) -> float:
    """Seconds to wait after that many failures in a row, with jitter."""
    longest: float = min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 16), LONGEST_BACKOFF)
    return longest * random.uniform(0.5, 1.0)
