"""Lines between the operator and the API on which something goes wrong."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from dreambooth_operator.kube.errors import Timeout, Unavailable, error_for
from tests.simulation.fake_api import Call

T = TypeVar("T")


class Fault(Enum):
    """What can go wrong with one call."""

    DIE_BEFORE = "dies before"
    DIE_AFTER = "dies after"
    RESPONSE_LOST = "response lost"
    TIMEOUT = "time-out"
    CONFLICT = "409"
    GONE = "410"
    INVALID = "422"
    TOO_MANY_REQUESTS = "429"
    SERVER_ERROR = "500"


@dataclass
class FaultyLine:
    """Carries all calls but one, with which something goes wrong.

    Attributes:
        fault: What goes wrong; nothing if None.
        at: With which of the counted calls, the first is 1.
        counts: Which calls are counted.
        die: Ends the operator.
        calls: All calls so far.
    """

    fault: Fault | None = None
    at: int = 0
    counts: Callable[[Call], bool] = lambda call: call.is_write
    die: Callable[[], None] = lambda: None
    calls: list[Call] = field(default_factory=list)
    _counted: int = 0

    async def carry(self, call: Call, perform: Callable[[], T]) -> T:
        """See `Line`."""
        # Every call takes its time, so that others come in between.
        await asyncio.sleep(0)
        self.calls.append(call)
        self._counted += self.counts(call)
        if self.fault is None or self._counted != self.at or not self.counts(call):
            return perform()
        return await self._fail(self.fault, perform)

    async def _fail(self, fault: Fault, perform: Callable[[], T]) -> T:
        match fault:
            case Fault.DIE_BEFORE:
                await self._death()
            case Fault.DIE_AFTER:
                perform()
                await self._death()
            case Fault.RESPONSE_LOST:
                perform()
                raise Unavailable("the connection was closed")
            case Fault.TIMEOUT:
                raise Timeout("no answer in time")
        raise error_for(int(fault.value), "injected", retry_after=1)

    async def _death(self) -> None:
        """Nothing that the operator does from here on reaches anyone."""
        self.die()
        await asyncio.get_running_loop().create_future()
