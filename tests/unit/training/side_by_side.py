"""Processes that work together, forked from one that has imported what they need.

Importing the libraries takes longer than all else that they do.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch.distributed as dist

Answer = TypeVar("Answer")

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.unit.training.group", "tests.unit.training.pair"])


def side_by_side(
    work: Callable[..., Answer], size: int, *given: Any, seconds: float = 380
) -> list[Answer]:
    """What `size` processes of one thread return from `work(rank, *given)`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with ProcessPoolExecutor(size, mp_context=_FORKING) as processes:
            tasks = [processes.submit(work, rank, *given) for rank in range(size)]
            return [task.result(seconds) for task in tasks]


def join(rank: int, size: int, store: Path) -> None:
    """Makes this process one of `size` that meet at a file."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
