"""How long something lasts: a number of steps, or of minutes."""

from dataclasses import dataclass
from typing import Protocol


class Pace(Protocol):
    """Says how much of the whole is done."""

    def share(self, step: int, seconds: float) -> float:
        """0 at the start; done from 1 on."""


@dataclass(frozen=True)
class Steps:
    """Counted: the same result on every run."""

    total: int

    def share(self, step: int, seconds: float) -> float:
        """By steps."""
        return step / self.total if self.total else 1.0


@dataclass(frozen=True)
class Minutes:
    """By the clock: as much as the machine can do."""

    total: float

    def share(self, step: int, seconds: float) -> float:
        """By time."""
        return seconds / 60 / self.total if self.total else 1.0


class Endless:
    """No end."""

    def share(self, step: int, seconds: float) -> float:
        """Nothing is ever done."""
        return 0.0
