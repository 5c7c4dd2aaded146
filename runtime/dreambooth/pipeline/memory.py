"""Peak memory of a run: this process and everything it started, Ray included."""

import threading
from types import TracebackType

import psutil

INTERVAL_SECONDS = 1.0


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
