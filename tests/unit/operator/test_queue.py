"""The work queue, in a loop whose time passes at once."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from dreambooth_operator.queue import LONGEST_BACKOFF, Again, WorkQueue, backoff
from tests.simulation.virtual_time import VirtualLoop


def run_for(
    seconds: float,
    work: Callable[[WorkQueue, str], Awaitable[Again]],
    *keys: str,
    workers: int = 4,
    queue: WorkQueue | None = None,
) -> WorkQueue:
    """Let a queue work on these keys for a while."""
    used = queue or WorkQueue()

    async def course() -> None:
        task = asyncio.create_task(used.run(lambda key: work(used, key), workers))
        for key in keys:
            used.add(key)
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(course())
    return used


def test_a_key_said_often_is_looked_at_once() -> None:
    looks: Counter[str] = Counter()

    async def work(_: WorkQueue, key: str) -> Again:
        looks[key] += 1
        return Again()

    run_for(10, work, *["a"] * 50, "b")
    assert looks == {"a": 1, "b": 1}


def test_what_happens_during_a_look_gives_one_more() -> None:
    looks: Counter[str] = Counter()

    async def work(queue: WorkQueue, key: str) -> Again:
        looks[key] += 1
        if looks[key] == 1:
            queue.add(key)
            queue.add(key)
        await asyncio.sleep(1)
        return Again()

    run_for(10, work, "a")
    assert looks == {"a": 2}


def test_no_job_is_looked_at_twice_at_a_time_and_many_jobs_are() -> None:
    now: Counter[str] = Counter()
    most = {"one": 0, "all": 0}

    async def work(queue: WorkQueue, key: str) -> Again:
        now[key] += 1
        most["one"] = max(most["one"], now[key])
        most["all"] = max(most["all"], now.total())
        queue.add(key)
        await asyncio.sleep(1)
        now[key] -= 1
        return Again()

    run_for(20, work, *"abcdefgh", workers=3)
    assert most == {"one": 1, "all": 3}


def test_a_look_that_asks_for_another_gets_it_in_time() -> None:
    times: list[float] = []

    async def work(_: WorkQueue, key: str) -> Again:
        times.append(asyncio.get_running_loop().time())
        return Again(after=30.0)

    run_for(100, work, "a")
    assert times == [0.0, 30.0, 60.0, 90.0]


def test_an_earlier_date_wins_over_a_later_one() -> None:
    times: list[float] = []

    async def work(queue: WorkQueue, key: str) -> Again:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            queue.add_after(key, 50)
            queue.add_after(key, 20)
            queue.add_after(key, 40)
        return Again()

    run_for(200, work, "a")
    assert times == [0.0, 20.0]


def test_a_look_that_fails_is_repeated_ever_later_and_others_go_on() -> None:
    times: list[float] = []
    others: list[str] = []

    async def work(_: WorkQueue, key: str) -> Again:
        if key != "bad":
            others.append(key)
            return Again()
        times.append(asyncio.get_running_loop().time())
        raise RuntimeError("the API is away")

    run_for(1000, work, "bad", "good")
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert others == ["good"]
    assert all(wait <= LONGEST_BACKOFF for wait in waits)
    assert waits[0] <= 1 < waits[3] < waits[-1]


def test_after_a_success_the_waits_begin_anew() -> None:
    times: list[float] = []

    async def work(queue: WorkQueue, key: str) -> Again:
        times.append(asyncio.get_running_loop().time())
        if len(times) in (6, 7):
            return Again(after=1.0)
        raise RuntimeError("away")

    run_for(60, work, "a")
    assert times[8] - times[7] <= 1


def test_keys_are_taken_in_the_order_they_came() -> None:
    order: list[str] = []

    async def work(_: WorkQueue, key: str) -> Again:
        order.append(key)
        return Again()

    run_for(1, work, *"cab", workers=1)
    assert order == ["c", "a", "b"]


def test_a_job_that_is_gone_is_forgotten() -> None:
    looks: Counter[str] = Counter()

    async def work(queue: WorkQueue, key: str) -> Again:
        looks[key] += 1
        queue.add_after(key, 5)
        queue.forget(key)
        return Again()

    assert run_for(100, work, "a").depth == 0
    assert looks == {"a": 1}


@pytest.mark.parametrize(("failures", "most"), [(1, 1.0), (4, 8.0), (50, LONGEST_BACKOFF)])
def test_backoff_doubles_up_to_a_bound_with_jitter(failures: int, most: float) -> None:
    waits = {backoff(failures) for _ in range(50)}
    assert all(most / 2 <= wait <= most for wait in waits)
    assert len(waits) > 1
