"""Running a step's device work from the host: as CUDA graphs where they can be had.

A training step of Stable Diffusion is some five thousand kernels, and launching them one by one
takes the host longer than computing takes the device. A graph is launched as a whole.
"""

import contextlib
from collections.abc import Callable, Iterator
from enum import StrEnum

import torch

from dreambooth.spans import Activity, span

Work = Callable[[], None]


class Launch(StrEnum):
    """How the work of a step reaches the device."""

    GRAPH = "one CUDA graph"
    SPLIT = "two CUDA graphs"
    EAGER = "eager"


def capture(work: Work) -> torch.cuda.CUDAGraph:
    """A graph of what `work` launches; it has run a few times before, and does not run now.

    Other threads may use the device meanwhile: Ray runs training in a thread beside others, and
    NCCL watches its work from one.
    """
    graph = torch.cuda.CUDAGraph()
    with span(Activity.CAPTURE), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph


@contextlib.contextmanager
def warming_up(device: torch.device) -> Iterator[None]:
    """Runs the body on a stream of its own, as work must before it is captured."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it followed from, is want of device memory.

    Ending a broken capture fails in turn, and hides what broke it.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def first_line(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
