"""Time and memory of each stage of a job, with Ray and without."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from bench.tables import ROOT

SAMPLE_SECONDS = 0.5
# From the command to the first stage; and what is neither that nor a stage.
START, REST = "start", "rest"
COMMAND = str(Path(sys.executable).with_name("dreambooth"))


@dataclass(frozen=True)
class Cost:
    """Wall time and peak memory, by stage; `digests` say what came out."""

    seconds: dict[str, float]
    peak_bytes: dict[str, int]
    digests: dict[str, str]

    @property
    def total_seconds(self) -> float:
        """From the command to its end."""
        return sum(self.seconds.values())


def with_ray(job_file: Path, workspace: Path) -> Cost:
    """What `dreambooth run` costs on an empty workspace."""
    return _measure([COMMAND, "run", str(job_file), "--workspace", str(workspace), "--json"])


def without_ray(job_file: Path, workspace: Path) -> Cost:
    """What the same work costs in one process."""
    return _measure([sys.executable, "-m", "bench.without_ray", str(job_file), str(workspace)])


def medians(costs: Sequence[Cost]) -> dict[str, Any]:
    """JSON-able medians over runs.

    Raises:
        ValueError: If the runs did not all give the same model and pictures.
    """
    if any(cost.digests != costs[0].digests for cost in costs):
        raise ValueError(f"runs differ: {[cost.digests for cost in costs]}")
    stages = list(costs[0].seconds)
    return {
        "runs": len(costs),
        "seconds": {s: round(median(c.seconds[s] for c in costs), 2) for s in stages},
        "peakBytes": {s: round(median(c.peak_bytes[s] for c in costs)) for s in stages},
        "totalSeconds": round(median(c.total_seconds for c in costs), 2),
        "digests": costs[0].digests,
    }


def _measure(command: Sequence[str]) -> Cost:
    meter = _Meter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with meter.watching(process.pid):
            for line in process.stdout:
                meter.hear(json.loads(line))
            status = process.wait()
    if status != 0:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    return meter.cost()


class _Meter:
    """Follows a job's events and, beside them, the memory of its process tree."""

    def __init__(self) -> None:
        self._part = START
        self._began = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._peaks: dict[str, int] = {}
        self._result: dict[str, Any] = {}

    def watching(self, pid: int) -> "_Watch":
        """Samples memory while the body runs."""
        return _Watch(self, pid)

    def hear(self, event: dict[str, Any]) -> None:
        """Takes an event of the job."""
        if event["kind"] == "stageStarted":
            self._enter(event["stage"])
        elif event["kind"] == "jobFinished":
            self._result = event["data"]
        elif event["kind"] == "stageFinished":
            self._enter(REST)

    def sample(self, pid: int) -> None:
        """Adds one look at the tree's memory to the stage that runs."""
        self._peaks[self._part] = max(self._peaks.get(self._part, 0), _tree_bytes(pid))

    def cost(self) -> Cost:
        """What was measured, once the job is over."""
        self._enter(REST)
        outputs = self._result["outputs"]
        names = ("modelDigest", "imagesDigest")
        peaks = {part: self._peaks.get(part, 0) for part in self._seconds}
        return Cost(self._seconds, peaks, {name: outputs[name] for name in names})

    def _enter(self, part: str) -> None:
        now = time.monotonic()
        self._seconds[self._part] = self._seconds.get(self._part, 0.0) + now - self._began
        self._part, self._began = part, now


class _Watch:
    def __init__(self, meter: _Meter, pid: int) -> None:
        self._meter = meter
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._meter.sample(self._pid)


def _tree_bytes(pid: int) -> int:
    """Memory of a process and all it started; what several share counts once in all."""
    total = 0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, AttributeError):
            continue
    return total
