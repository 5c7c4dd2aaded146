"""Kernels that are launched, or compiled ahead in a rehearsal; all others are called by these."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton

from dreambooth.kernels.rehearsal import is_rehearsing


class Kernel:
    """A `triton.jit` function: `kernel[grid](...)` launches it on the current stream.

    In a rehearsal that compiles it for the types and constants of its arguments instead.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.jitted = triton.jit(function)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        """What takes the arguments."""
        if is_rehearsing():
            return partial(_compile, self.jitted, grid)
        launched: Callable[..., Any] = self.jitted[grid]
        return launched


def _compile(jitted: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    shapes = [
        triton.MockTensor(value.dtype) if isinstance(value, torch.Tensor) else value
        for value in arguments
    ]
    jitted.warmup(*shapes, grid=grid, **options)
