"""Work on the processor that is many small pieces, spread over its cores."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

# More gain nothing: starting them takes longer than the work.
_MOST = 16


def spread(
    function: Callable[[Piece], Result], pieces: Iterable[Piece], chunk: int = 1
) -> list[Result]:
    """`function` of each piece, in their order. It must be importable by name."""
    count = min(_MOST, len(os.sched_getaffinity(0)))
    # Not forked: a process that uses a GPU or threads must not be copied.
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        return list(pool.map(function, pieces, chunksize=chunk))
