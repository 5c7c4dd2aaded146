"""Times of work on a device: events and CUDA graphs on a GPU, the clock on a CPU."""

import time
from collections.abc import Callable
from statistics import median

import torch

Work = Callable[[], object]
ROUNDS = 5
# Long enough for the clock's and the launch's own share to vanish.
WINDOW_MS = 20.0


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def milliseconds(work: Work, rounds: int = ROUNDS, warm: int = 3, repeats: int = 1) -> float:
    """Median over `rounds` of the time of one call, after `warm` calls; launches included."""
    for _ in range(warm):
        work()
    synchronize()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        synchronize()
        times.append((time.perf_counter() - began) * 1e3 / repeats)
    return median(times)


def graphed_milliseconds(work: Work, rounds: int = ROUNDS) -> float:
    """Median time of one call when launches cost nothing: replayed from a CUDA graph.

    On a CPU, where there are no graphs, the same as `milliseconds`.
    """
    if not torch.cuda.is_available():
        return milliseconds(work, rounds=2, warm=1)
    once = milliseconds(work, rounds=1, warm=3)
    repeats = max(1, min(50, round(WINDOW_MS / max(once, 1e-3))))
    graph = capture(lambda: [work() for _ in range(repeats)])
    try:
        return milliseconds(graph.replay, rounds=rounds, warm=1) / repeats
    finally:
        del graph
        torch.cuda.empty_cache()


def capture(work: Work, warm: int = 2) -> torch.cuda.CUDAGraph:
    """One call of `work` as a CUDA graph, after `warm` calls on a stream of their own."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    torch.cuda.synchronize()
    return graph
