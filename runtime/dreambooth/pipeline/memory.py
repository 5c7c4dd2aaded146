"""Memory: what a run may use, and the most that it and all it started used, Ray included."""

import threading
from pathlib import Path
from types import TracebackType

import psutil

from dreambooth.processors import CGROUP

INTERVAL_SECONDS = 1.0


def usable_bytes(cgroup: Path = CGROUP) -> int:
    """The machine's memory, or in a container its limit (control groups of version 2 and 1)."""
    total = psutil.virtual_memory().total
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return min(total, int((cgroup / name).read_text(encoding="ascii")))
        except (OSError, ValueError):
            # There is no such file, or no limit, which is a word.
            continue
    return total


class PeakMemory:
    """Samples resident memory of the process tree while the body runs.

    Pages that processes share (Ray's object store) are counted once, for the process that has
    most of them.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, _tree_bytes())
            if self._stop.wait(INTERVAL_SECONDS):
                return


def _tree_bytes() -> int:
    private, shared = 0, 0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            memory = process.memory_info()
        except psutil.Error:
            continue
        mapped = getattr(memory, "shared", 0)
        private += memory.rss - mapped
        shared = max(shared, mapped)
    return private + shared
