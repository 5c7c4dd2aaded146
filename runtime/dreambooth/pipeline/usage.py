"""GPU time: counted by stage and by try, kept on the workspace, and ended where the limit is.

A killed run loses the few seconds since the last write; everything else is there when the job goes
on, in whichever process and on whichever machine.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreambooth.api.job import Job
from dreambooth.errors import BudgetError
from dreambooth.pipeline.progress import StageName
from dreambooth.workspace.atomic import read_json, write_json

SAVE_INTERVAL_SECONDS = 5.0
FIELD = "spec.limits.gpuHours"


@dataclass(frozen=True)
class Accounting:
    """How GPU time is counted.

    Attributes:
        attempt: Number of the try. All runs on a machine of one's own are one try.
        gpus: GPUs that are held from beginning to end; None counts those of Ray, once it runs.
        used: GPU-seconds of the earlier tries; None believes what is on the workspace.
        limit: GPU-seconds over all tries; None is no limit.
    """

    attempt: int = 1
    gpus: float | None = None
    used: float | None = None
    limit: float | None = None

    @classmethod
    def of(cls, job: Job) -> "Accounting":
        """For a run that nobody else counts: the limit is the manifest's."""
        return cls(limit=limit_of(job))


def limit_of(job: Job) -> float | None:
    """GPU-seconds that the manifest allows over all tries; None if it does not say."""
    hours = job.manifest["spec"].get("limits", {}).get("gpuHours")
    return None if hours is None else float(hours) * 3600.0


class GpuMeter:
    """Counts the GPU time of one run; may be used by several threads."""

    def __init__(
        self,
        file: Path,
        accounting: Accounting,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Goes on counting from what `file` says of earlier runs."""
        self._file, self._accounting, self._clock = file, accounting, clock
        known = read_json(file)
        self._tries = _numbers(known, "attempts")
        self._stages = _numbers(known, "stages")
        self._gpus = accounting.gpus or 0.0
        self._stage: StageName | None = None
        self._lock = threading.Lock()
        self._ticked = self._saved = clock()

    def holds(self, gpus: float) -> None:
        """From now on `gpus` GPUs are held, unless the accounting says how many."""
        self.tick()
        if self._accounting.gpus is None:
            self._gpus = float(gpus)

    def enter(self, stage: StageName | None) -> None:
        """From now on time is that of `stage`; None is between stages."""
        self.tick()
        self._stage = stage
        self.save()

    def tick(self) -> None:
        """Counts what has passed."""
        with self._lock:
            now = self._clock()
            spent = (now - self._ticked) * self._gpus
            self._ticked = now
            if spent > 0:
                number = str(self._accounting.attempt)
                self._tries[number] = self._tries.get(number, 0.0) + spent
                if self._stage is not None:
                    name = self._stage.value
                    self._stages[name] = self._stages.get(name, 0.0) + spent
            due = now - self._saved >= SAVE_INTERVAL_SECONDS
        if due:
            self.save()

    def save(self) -> None:
        """Puts the counts on the workspace."""
        with self._lock:
            self._saved = self._clock()
            if self._tries:
                write_json(self._file, {"attempts": self._tries, "stages": self._stages})

    @property
    def gpus(self) -> float:
        """GPUs that are held now."""
        return self._gpus

    def of_stage(self, stage: StageName) -> float:
        """GPU-seconds of a stage, over all runs."""
        return self._stages.get(stage.value, 0.0)

    @property
    def of_attempt(self) -> float:
        """GPU-seconds of this try."""
        return self._tries.get(str(self._accounting.attempt), 0.0)

    @property
    def total(self) -> float:
        """GPU-seconds over all tries."""
        earlier = self._accounting.used
        if earlier is None:
            mine = str(self._accounting.attempt)
            earlier = sum(spent for number, spent in self._tries.items() if number != mine)
        return earlier + self.of_attempt

    def seconds_left(self) -> float | None:
        """How long the GPUs that are held may still be; None for ever."""
        limit = self._accounting.limit
        if limit is None or not self._gpus:
            return None
        self.tick()
        return max(0.0, limit - self.total) / self._gpus

    def check(self) -> None:
        """Ends the job if its GPU time is used up.

        Raises:
            BudgetError: If it is.
        """
        if self.seconds_left() == 0.0:
            raise self.reached()

    def reached(self, where: str | None = None) -> BudgetError:
        """The error that says so, and what the job was doing."""
        limit = (self._accounting.limit or 0.0) / 3600.0
        doing = f"; {where}" if where else ""
        return BudgetError(
            f"the job has used {self.total / 3600.0:.4g} GPU-hours of {limit:.4g}{doing}",
            field=FIELD,
            remedy="What is finished is kept. Raise the limit to go on from there.",
        )


def _numbers(value: Any, name: str) -> dict[str, float]:
    """The numbers that a file of ours says; none if it is torn or not ours."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        return {}
    return {
        str(key): float(number) for key, number in found.items() if isinstance(number, int | float)
    }
