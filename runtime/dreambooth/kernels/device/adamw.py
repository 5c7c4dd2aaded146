"""The kernels of `FusedAdamW`, and how they are launched."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from dreambooth.kernels.device.launching import Kernel
from dreambooth.kernels.flat import FlatLayout

# Elements of one program, and its warps: 8 elements a thread, so that a thread reads 16 bytes of
# bf16 and 2 x 16 bytes of fp32 at a time and enough programs fit on a multiprocessor to hide the
# look-up of addresses.
CHUNK = 2048
WARPS = 8

TYPES = {
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
    torch.float32: tl.float32,
}


# The hint belongs to the operation that makes the pointers, so that is here: on a function's
# argument it would be lost.
@triton.jit
def _load(base, offsets, mask, ALIGNED: tl.constexpr, MASKED: tl.constexpr):
    pointers = base + offsets
    if ALIGNED:
        pointers = tl.multiple_of(pointers, [16])
    if MASKED:
        return tl.load(pointers, mask=mask, other=0.0)
    return tl.load(pointers)


@triton.jit
def _store(base, offsets, values, mask, ALIGNED: tl.constexpr, MASKED: tl.constexpr):
    pointers = base + offsets
    if ALIGNED:
        pointers = tl.multiple_of(pointers, [16])
    if MASKED:
        tl.store(pointers, values, mask=mask)
    else:
        tl.store(pointers, values)


@Kernel
def _square_sums(
    table,
    chunks,
    slices,
    sums,
    GRADIENT: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """sums[i] = sum of squares of the gradient's elements in chunk i, in fp32."""
    program = tl.program_id(0)
    index = tl.load(chunks + 2 * program)
    start = tl.load(chunks + 2 * program + 1).to(tl.int64) * CHUNK
    numel = tl.load(slices + 2 * index)
    address = tl.load(table + index)
    total = 0.0
    if address != 0:
        offsets = start + tl.arange(0, CHUNK)
        base = address.to(tl.pointer_type(GRADIENT))
        # A mask of unknown alignment would forbid wide accesses, so only the last chunk has one.
        if start + CHUNK <= numel:
            values = _load(base, offsets, offsets, ALIGNED, False).to(tl.float32)
            total = tl.sum(values * values, axis=0)
        else:
            values = _load(base, offsets, offsets < numel, ALIGNED, True).to(tl.float32)
            total = tl.sum(values * values, axis=0)
    tl.store(sums + program, total)


@Kernel
def _prepare(
    total, step_count, powers, learning_rate, norm, settings, scalars, CLIPS: tl.constexpr
):
    """Counts the step and computes what it has in common for all elements.

    scalars = [gradient factor, 1 - lr * weight decay, lr / bias correction 1,
    sqrt(bias correction 2)].
    """
    tl.store(step_count, tl.load(step_count) + 1)
    rate = tl.load(learning_rate).to(tl.float64)
    decay = tl.load(settings + 2)
    factor = tl.load(settings + 4)
    first = tl.load(powers) * tl.load(settings)
    second = tl.load(powers + 1) * tl.load(settings + 1)
    tl.store(powers, first)
    tl.store(powers + 1, second)
    if CLIPS:
        length = tl.sqrt(tl.load(total).to(tl.float64)) * factor
        tl.store(norm, length.to(tl.float32))
        clip = tl.load(settings + 3) / (length + 1e-6)
        # Written so that a norm that is not a number stays one.
        clip = tl.where(clip > 1.0, 1.0, clip)
        factor = factor * clip
    tl.store(scalars, factor.to(tl.float32))
    tl.store(scalars + 1, (1.0 - rate * decay).to(tl.float32))
    tl.store(scalars + 2, (rate / (1.0 - first)).to(tl.float32))
    tl.store(scalars + 3, tl.sqrt(1.0 - second).to(tl.float32))


@triton.jit
def _update(
    gradients,
    weights,
    masters,
    exp_avg,
    exp_avg_sq,
    offsets,
    in_flat,
    scalars,
    mask,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    REST1: tl.constexpr,
    REST2: tl.constexpr,
    EPS: tl.constexpr,
    WRITES: tl.constexpr,
    ALIGNED: tl.constexpr,
    MASKED: tl.constexpr,
):
    factor = tl.load(scalars)
    decay = tl.load(scalars + 1)
    step_size = tl.load(scalars + 2)
    root = tl.load(scalars + 3)
    gradient = _load(gradients, offsets, mask, ALIGNED, MASKED).to(tl.float32) * factor
    master = _load(masters, in_flat, mask, True, MASKED)
    first = _load(exp_avg, in_flat, mask, True, MASKED)
    second = _load(exp_avg_sq, in_flat, mask, True, MASKED)
    first = BETA1 * first + REST1 * gradient
    second = BETA2 * second + REST2 * gradient * gradient
    master = master * decay - step_size * (first / (tl.sqrt(second) / root + EPS))
    _store(masters, in_flat, master, mask, True, MASKED)
    _store(exp_avg, in_flat, first, mask, True, MASKED)
    _store(exp_avg_sq, in_flat, second, mask, True, MASKED)
    if WRITES:
        _store(weights, offsets, master.to(weights.dtype.element_ty), mask, ALIGNED, MASKED)


@Kernel
def _adamw(
    table,
    chunks,
    slices,
    masters,
    exp_avg,
    exp_avg_sq,
    scalars,
    count,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    REST1: tl.constexpr,
    REST2: tl.constexpr,
    EPS: tl.constexpr,
    GRADIENT: tl.constexpr,
    WORKING: tl.constexpr,
    WRITES: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
):
    program = tl.program_id(0)
    index = tl.load(chunks + 2 * program)
    start = tl.load(chunks + 2 * program + 1).to(tl.int64) * CHUNK
    numel = tl.load(slices + 2 * index)
    place = tl.load(slices + 2 * index + 1)
    address = tl.load(table + index)
    if address != 0:
        offsets = start + tl.arange(0, CHUNK)
        gradients = address.to(tl.pointer_type(GRADIENT))
        weights = tl.load(table + count + index).to(tl.pointer_type(WORKING))
        in_flat = place + offsets
        if start + CHUNK <= numel:
            _update(
                gradients, weights, masters, exp_avg, exp_avg_sq, offsets, in_flat,
                scalars, offsets, BETA1, BETA2, REST1, REST2, EPS, WRITES, ALIGNED, False,
            )  # fmt: skip
        else:
            _update(
                gradients, weights, masters, exp_avg, exp_avg_sq, offsets, in_flat,
                scalars, offsets < numel, BETA1, BETA2, REST1, REST2, EPS, WRITES, ALIGNED, True,
            )  # fmt: skip


class Launcher:
    """The device's tables for one set of parameters, and the launches of a step.

    Args:
        layout: Where the parameters lie in the flat buffers.
        device: Where all is.
        chunk: Elements of one program, a power of two.
        warps: Of one program.
        portions: Ends of runs of parameters that are updated one after the other.
    """

    def __init__(
        self,
        layout: FlatLayout,
        device: torch.device,
        chunk: int = CHUNK,
        warps: int = WARPS,
        portions: Sequence[int] | None = None,
    ) -> None:
        numels = torch.tensor(layout.numels)
        counts = torch.div(numels + chunk - 1, chunk, rounding_mode="floor")
        owners = torch.repeat_interleave(torch.arange(len(numels)), counts)
        firsts = (counts.cumsum(0) - counts)[owners]
        places = torch.arange(len(owners)) - firsts
        self.chunk, self.warps, self.count = chunk, warps, len(numels)
        self.programs = len(owners)
        self.chunks = torch.stack([owners, places], dim=1).to(device, torch.int32)
        ends = [0, *(int(counts[:end].sum()) for end in portions or [len(numels)])]
        # Copies: a kernel would be compiled once more for a table that begins anywhere.
        self.portions = [self.chunks[a:b].clone() for a, b in itertools.pairwise(ends)]
        self.slices = torch.stack([numels, torch.tensor(layout.offsets)], dim=1).to(device)
        self.sums = torch.zeros(self.programs, device=device)
        self.total = torch.zeros((), device=device)
        self.scalars = torch.zeros(4, device=device)

    def launch(
        self,
        *,
        table: Tensor,
        masters: Tensor,
        exp_avg: Tensor,
        exp_avg_sq: Tensor,
        step_count: Tensor,
        powers: Tensor,
        learning_rate: Tensor,
        norm: Tensor,
        settings: Tensor,
        betas: tuple[float, float],
        eps: float,
        clips: bool,
        gradient_type: torch.dtype,
        working_type: torch.dtype,
        aligned: bool,
        over_workers: Callable[[Tensor], Any] | None = None,
        written: Callable[[int], None] | None = None,
    ) -> None:
        """Launches one step on the current stream.

        `over_workers` is given the sum of squares before it is used, and `written` the number of
        each portion when all that updates it has been launched.
        """
        grid, gradient = (self.programs,), TYPES[gradient_type]
        shared = {"ALIGNED": aligned, "CHUNK": self.chunk, "num_warps": self.warps}
        if clips:
            _square_sums[grid](
                table, self.chunks, self.slices, self.sums, GRADIENT=gradient, **shared
            )
            torch.sum(self.sums, dim=0, out=self.total)
            if over_workers is not None:
                over_workers(self.total)
        _prepare[(1,)](
            self.total,
            step_count,
            powers,
            learning_rate,
            norm,
            settings,
            self.scalars,
            CLIPS=clips,
            num_warps=1,
        )
        for number, chunks in enumerate(self.portions):
            if len(chunks):
                _adamw[(len(chunks),)](
                    table,
                    chunks,
                    self.slices,
                    masters,
                    exp_avg,
                    exp_avg_sq,
                    self.scalars,
                    self.count,
                    BETA1=betas[0],
                    BETA2=betas[1],
                    REST1=1.0 - betas[0],
                    REST2=1.0 - betas[1],
                    EPS=eps,
                    GRADIENT=gradient,
                    WORKING=TYPES[working_type],
                    # fp32 parameters are views of the masters.
                    WRITES=working_type != torch.float32,
                    **shared,
                )
            if written is not None:
                written(number)
