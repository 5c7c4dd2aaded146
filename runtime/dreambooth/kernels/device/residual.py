"""The kernel of `dreambooth.kernels.residual`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from dreambooth.kernels.device.launching import Kernel

ROWS, CHANNELS = 64, 64


@Kernel
def _add(x, residual, bias, y, R, C, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    mask = (rows < R)[:, None] & (channels < C)[None, :]
    offsets = rows.to(tl.int64)[:, None] * C + channels[None, :]
    more = tl.load(bias + channels, mask=channels < C, other=0.0).to(tl.float32)
    values = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32) + more[None, :]
    values += tl.load(residual + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + offsets, values.to(y.dtype.element_ty), mask=mask)


def add(x: Tensor, residual: Tensor, bias: Tensor) -> Tensor:
    """`x + residual + bias` of rows `[R, C]` and a bias `[C]`."""
    rows, channels = x.shape
    y = torch.empty_like(x)
    grid = (triton.cdiv(rows, ROWS), triton.cdiv(channels, CHANNELS))
    _add[grid](x, residual, bias, y, rows, channels, ROWS=ROWS, CHANNELS=CHANNELS, num_warps=4)
    return y
