"""One operator works at a time: whoever holds the Lease.

A lease is taken over only after it was seen unchanged for its whole duration, so clocks of
different machines need not agree. Losing it ends the process; writes are safe for two operators
anyway, because status is only written upon the very version that was read.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from dreambooth_operator.config import Lease
from dreambooth_operator.kube.errors import Conflict, KubeError, NotFound
from dreambooth_operator.kube.kinds import LEASE, Object, Ref

logger = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Another operator works now, or the API was out of reach for too long."""


class LeaseApi(Protocol):
    """What a lock needs of the API."""

    async def get(self, ref: Ref) -> Object:
        """Read the lease."""
        ...

    async def create(self, obj: Object) -> Object:
        """Make the lease."""
        ...

    async def replace(self, obj: Object) -> Object:
        """Write the lease upon the version in its metadata."""
        ...


@dataclass
class Lock:
    """The lease as one operator uses it.

    Args:
        api: The Kubernetes API.
        settings: Name and duration.
        namespace: Where the lease is.
        identity: This operator's name, which no other has.
        sleep: Waits; tests pass their own.
        time: Seconds of a clock that never goes back.
    """

    api: LeaseApi
    settings: Lease
    namespace: str
    identity: str
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    time: Callable[[], float] = lambda: asyncio.get_running_loop().time()

    @property
    def _pause(self) -> float:
        return self.settings.seconds / 3

    async def acquire(self) -> None:
        """Wait until this operator holds the lease."""
        seen, since = "", self.time()
        while True:
            try:
                version, holder = await self._look()
                if version != seen:
                    seen, since = version, self.time()
                expired = self.time() - since >= self.settings.seconds
                if (not holder or holder == self.identity or expired) and await self._take(version):
                    logger.info("holding lease %s", self.settings.name)
                    return
            except KubeError as error:
                logger.warning("the lease could not be read: %s", error)
            await self.sleep(self._pause)

    async def keep(self) -> None:
        """Renew the lease for ever.

        Raises:
            LeaseLost: If another has it, or it could not be renewed in time.
        """
        renewed = self.time()
        while True:
            await self.sleep(self._pause)
            try:
                version, holder = await self._look()
                if holder != self.identity:
                    raise LeaseLost(f"lease {self.settings.name} is held by {holder or 'nobody'}")
                if await self._take(version):
                    renewed = self.time()
            except KubeError as error:
                logger.warning("the lease could not be renewed: %s", error)
            if self.time() - renewed >= self.settings.seconds:
                raise LeaseLost(f"lease {self.settings.name} could not be renewed in time")

    async def release(self) -> None:
        """Let another operator begin at once."""
        try:
            version, holder = await self._look()
            if holder == self.identity:
                await self._write(version, holder="")
        except KubeError as error:
            logger.warning("the lease could not be released: %s", error)

    async def _look(self) -> tuple[str, str]:
        """Version and holder; both empty if there is no lease."""
        try:
            lease = await self.api.get(Ref(LEASE, self.namespace, self.settings.name))
        except NotFound:
            return "", ""
        holder = lease.get("spec", {}).get("holderIdentity") or ""
        return str(lease["metadata"]["resourceVersion"]), str(holder)

    async def _take(self, version: str) -> bool:
        try:
            await self._write(version, holder=self.identity)
        except Conflict:
            return False
        return True

    async def _write(self, version: str, *, holder: str) -> None:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": self.settings.seconds,
            "renewTime": moment,
        }
        lease = LEASE.new(self.namespace, self.settings.name, spec=spec)
        if version:
            lease["metadata"]["resourceVersion"] = version
            await self.api.replace(lease)
        else:
            await self.api.create(lease)


@asynccontextmanager
async def held(lock: Lock | None) -> AsyncIterator[None]:
    """Hold the lease during the body, or no lease if there is no lock.

    Raises:
        ExceptionGroup: With `LeaseLost`, if the lease is lost meanwhile.
    """
    if lock is None:
        yield
        return
    await lock.acquire()
    try:
        async with asyncio.TaskGroup() as tasks:
            keeper = tasks.create_task(lock.keep())
            yield
            keeper.cancel()
    finally:
        await lock.release()
