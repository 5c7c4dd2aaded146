"""The kernels of `dreambooth.kernels.geglu`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from dreambooth.kernels.device.launching import Kernel

ROWS, COLUMNS = 8, 256


@triton.jit
def _normal(x):
    """The standard normal distribution's value and its density at x.

    erf is Abramowitz and Stegun's 7.1.26, to 1.5e-7: what fp32 holds. CUDA's own would be linked
    from a library of device code, which takes a second to compile.
    """
    power = tl.exp(-0.5 * x * x)
    t = 1.0 / (1.0 + 0.23164189 * tl.abs(x))
    series = 1.421413741 + t * (-1.453152027 + t * 1.061405429)
    tail = 0.5 * power * t * (0.254829592 + t * (-0.284496736 + t * series))
    return tl.where(x < 0.0, tail, 1.0 - tail), 0.3989422804014327 * power


@triton.jit
def _place(R, D, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """This program's offsets in `[R, 2D]` and in `[R, D]`, and its mask."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    columns = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    wide = rows.to(tl.int64) * (2 * D) + columns
    narrow = rows.to(tl.int64) * D + columns
    return wide, narrow, (rows < R) & (columns < D)


@Kernel
def _forward(x, y, R, D, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    wide, narrow, mask = _place(R, D, ROWS, COLUMNS)
    hidden = tl.load(x + wide, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x + (wide + D), mask=mask, other=0.0).to(tl.float32)
    cdf, _ = _normal(gate)
    result = hidden * gate * cdf
    tl.store(y + narrow, result.to(y.dtype.element_ty), mask=mask)


@Kernel
def _backward(x, dy, dx, R, D, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    wide, narrow, mask = _place(R, D, ROWS, COLUMNS)
    hidden = tl.load(x + wide, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x + (wide + D), mask=mask, other=0.0).to(tl.float32)
    slope = tl.load(dy + narrow, mask=mask, other=0.0).to(tl.float32)
    cdf, density = _normal(gate)
    dhidden = slope * gate * cdf
    dgate = slope * hidden * (cdf + gate * density)
    tl.store(dx + wide, dhidden.to(dx.dtype.element_ty), mask=mask)
    tl.store(dx + (wide + D), dgate.to(dx.dtype.element_ty), mask=mask)


def forward(x: Tensor) -> Tensor:
    """`[R, 2D]` to `[R, D]`."""
    rows, width = x.shape[0], x.shape[1] // 2
    y = x.new_empty((rows, width))
    _forward[_grid(rows, width)](x, y, rows, width, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4)
    return y


def backward(dy: Tensor, x: Tensor) -> Tensor:
    """The gradient of `x`."""
    rows, width = dy.shape
    dx = torch.empty_like(x)
    _backward[_grid(rows, width)](x, dy, dx, rows, width, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4)
    return dx


def _grid(rows: int, width: int) -> tuple[int, int]:
    return triton.cdiv(rows, ROWS), triton.cdiv(width, COLUMNS)
