"""Only one operator works at a time, in a loop whose time passes at once."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from dreambooth_operator.config import Lease
from dreambooth_operator.kube.errors import Conflict, NotFound, Unavailable
from dreambooth_operator.kube.kinds import Object, Ref
from dreambooth_operator.lease import LeaseLost, Lock, held
from tests.simulation.virtual_time import VirtualLoop

SETTINGS = Lease(enabled=True, name="operator", seconds=30)


class OneLease:
    """An API with one lease, which can be out of reach."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.away = False

    async def get(self, ref: Ref) -> Object:
        self._reach()
        if self.lease is None:
            raise NotFound(str(ref))
        return self.lease

    async def create(self, obj: Object) -> Object:
        self._reach()
        if self.lease is not None:
            raise Conflict("exists")
        return self._store(obj, "0")

    async def replace(self, obj: Object) -> Object:
        self._reach()
        assert self.lease is not None
        version = self.lease["metadata"]["resourceVersion"]
        if obj["metadata"]["resourceVersion"] != version:
            raise Conflict("changed")
        return self._store(obj, version)

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"]) if self.lease else ""

    def _store(self, obj: Object, version: str) -> Object:
        obj["metadata"]["resourceVersion"] = str(int(version) + 1)
        self.lease = obj
        return obj

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("away")


def in_no_time(course: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(course)


def test_the_first_one_gets_the_lease_and_gives_it_back() -> None:
    async def course() -> None:
        api = OneLease()
        async with held(Lock(api, SETTINGS, "system", "first")):
            assert api.holder == "first"
        assert api.holder == ""

    in_no_time(course())


def test_the_second_waits_while_the_first_renews() -> None:
    async def course() -> None:
        api = OneLease()
        async with held(Lock(api, SETTINGS, "system", "first")):
            second = asyncio.create_task(Lock(api, SETTINGS, "system", "second").acquire())
            await asyncio.sleep(1000)
            assert not second.done()
            assert api.holder == "first"
        await second
        assert api.holder == "second"

    in_no_time(course())


def test_the_lease_of_one_that_died_is_taken_over_after_its_duration() -> None:
    async def course() -> None:
        api = OneLease()
        await Lock(api, SETTINGS, "system", "first").acquire()
        began = asyncio.get_running_loop().time()
        await Lock(api, SETTINGS, "system", "second").acquire()
        assert api.holder == "second"
        assert 30 <= asyncio.get_running_loop().time() - began <= 40

    in_no_time(course())


def test_of_two_that_ask_at_once_one_gets_it() -> None:
    async def course() -> None:
        api = OneLease()
        asked = [
            asyncio.create_task(Lock(api, SETTINGS, "system", name).acquire()) for name in "ab"
        ]
        await asyncio.sleep(5)
        assert sorted(task.done() for task in asked) == [False, True]
        for task in asked:
            task.cancel()

    in_no_time(course())


def test_whoever_loses_the_lease_stops() -> None:
    async def course() -> None:
        api = OneLease()
        lock = Lock(api, SETTINGS, "system", "first")
        await lock.acquire()
        keeper = asyncio.create_task(lock.keep())
        await asyncio.sleep(15)
        assert api.lease is not None
        api.lease["spec"]["holderIdentity"] = "thief"
        with pytest.raises(LeaseLost, match="held by thief"):
            await keeper

    in_no_time(course())


def test_whoever_cannot_renew_in_time_stops_and_a_short_absence_does_not_matter() -> None:
    async def course() -> None:
        api = OneLease()
        lock = Lock(api, SETTINGS, "system", "first")
        await lock.acquire()
        keeper = asyncio.create_task(lock.keep())
        await asyncio.sleep(5)
        api.away = True
        await asyncio.sleep(15)
        api.away = False
        await asyncio.sleep(100)
        assert not keeper.done()
        api.away = True
        with pytest.raises(LeaseLost, match="in time"):
            await keeper

    in_no_time(course())


def test_the_work_is_ended_when_the_lease_is_lost() -> None:
    async def course() -> None:
        api = OneLease()
        with pytest.raises(BaseExceptionGroup) as caught:
            async with held(Lock(api, SETTINGS, "system", "first")):
                api.away = True
                await asyncio.sleep(10_000)
        assert caught.value.subgroup(LeaseLost) is not None

    in_no_time(course())


def test_without_a_lock_nothing_is_asked_for() -> None:
    async def course() -> None:
        async with held(None):
            await asyncio.sleep(0)

    with asyncio.Runner() as runner:
        assert runner.run(course()) is None
