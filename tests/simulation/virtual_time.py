"""An event loop whose time passes at once: whoever sleeps is woken as soon as all others sleep."""

import asyncio
import selectors
from datetime import UTC, datetime, timedelta
from typing import Any

BEGIN = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


class _Selector(selectors.DefaultSelector):
    """Instead of waiting, lets time pass."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        """What is ready; nobody outside of the loop ever makes anything ready."""
        if timeout is None:
            raise RuntimeError("everybody waits, and nobody will ever wake anyone")
        self.passed += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds since the loop was made, as sleepers count them."""
        return self._virtual.passed

    def now(self) -> datetime:
        """The same as a date."""
        return BEGIN + timedelta(seconds=self.time())
