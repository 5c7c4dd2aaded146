"""Memory and use of the GPUs while something else runs, as the driver sees them."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

INTERVAL_MS = 200
FIELDS = "index,memory.used,utilization.gpu"


@dataclass(frozen=True)
class Sample:
    """One look at one GPU: `busy` is the share of the last moments in which a kernel ran."""

    at: float
    gpu: int
    gib: float
    busy: float


class GpuWatch:
    """Looks at the GPUs that may be used, every fifth of a second; without any it sees nothing."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator["GpuWatch"]:
        """While the body runs."""
        if shutil.which("nvidia-smi") is None:
            yield self
            return
        command = [
            "nvidia-smi",
            *_only_visible(),
            f"--query-gpu={FIELDS}",
            "--format=csv,noheader,nounits",
            "-lms",
            str(INTERVAL_MS),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            reader = threading.Thread(target=self._read, args=(process,), daemon=True)
            reader.start()
            try:
                yield self
            finally:
                process.terminate()
                reader.join()

    def between(self, start: float, end: float) -> dict[str, Any]:
        """Peak memory of one GPU and mean use of all between two times of the monotonic clock."""
        seen = [sample for sample in self.samples if start <= sample.at <= end]
        if not seen:
            return {}
        return {
            "peak_gib": max(sample.gib for sample in seen),
            "busy_share": sum(sample.busy for sample in seen) / len(seen),
        }

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                index, used, busy = (float(part) for part in line.split(","))
                sample = Sample(time.monotonic(), int(index), used / 1024, busy / 100)
                self.samples.append(sample)


def _only_visible() -> list[str]:
    """The option that leaves out GPUs which others work on."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [f"--id={visible}"] if visible else []
