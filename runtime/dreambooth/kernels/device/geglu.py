"""The kernels of `dreambooth.kernels.geglu`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _normal_cdf(x):
    return 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _forward(x, y, D, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = lanes < D
    hidden = tl.load(x + row * 2 * D + lanes, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x + row * 2 * D + D + lanes, mask=mask, other=0.0).to(tl.float32)
    result = hidden * gate * _normal_cdf(gate)
    tl.store(y + row * D + lanes, result.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _backward(x, dy, dx, D, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = lanes < D
    hidden = tl.load(x + row * 2 * D + lanes, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x + row * 2 * D + D + lanes, mask=mask, other=0.0).to(tl.float32)
    slope = tl.load(dy + row * D + lanes, mask=mask, other=0.0).to(tl.float32)
    cdf = _normal_cdf(gate)
    density = 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
    dhidden = slope * gate * cdf
    dgate = slope * hidden * (cdf + gate * density)
    tl.store(dx + row * 2 * D + lanes, dhidden.to(dx.dtype.element_ty), mask=mask)
    tl.store(dx + row * 2 * D + D + lanes, dgate.to(dx.dtype.element_ty), mask=mask)


def forward(x: Tensor) -> Tensor:
    """`[R, 2D]` to `[R, D]`."""
    rows, width = x.shape[0], x.shape[1] // 2
    y = x.new_empty((rows, width))
    _forward[(rows, triton.cdiv(width, BLOCK))](x, y, width, BLOCK=BLOCK, num_warps=4)
    return y


def backward(dy: Tensor, x: Tensor) -> Tensor:
    """The gradient of `x`."""
    rows, width = dy.shape
    dx = torch.empty_like(x)
    _backward[(rows, triton.cdiv(width, BLOCK))](x, dy, dx, width, BLOCK=BLOCK, num_warps=4)
    return dx
