"""The kernels of `dreambooth.kernels.geglu`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 8, 256


@triton.jit
def _normal_cdf(x):
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _place(R, D, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """This program's offsets in `[R, 2D]` and in `[R, D]`, and its mask."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    columns = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    wide = rows.to(tl.int64) * (2 * D) + columns
    narrow = rows.to(tl.int64) * D + columns
    return wide, narrow, (rows < R) & (columns < D)


@triton.jit
def _forward(x, y, R, D, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    wide, narrow, mask = _place(R, D, ROWS, COLUMNS)
    hidden = tl.load(x + wide, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x + (wide + D), mask=mask, other=0.0).to(tl.float32)
    result = hidden * gate * _normal_cdf(gate)
    tl.store(y + narrow, result.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _backward(x, dy, dx, R, D, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    wide, narrow, mask = _place(R, D, ROWS, COLUMNS)
    hidden = tl.load(x + wide, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x + (wide + D), mask=mask, other=0.0).to(tl.float32)
    slope = tl.load(dy + narrow, mask=mask, other=0.0).to(tl.float32)
    cdf = _normal_cdf(gate)
    density = 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
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
