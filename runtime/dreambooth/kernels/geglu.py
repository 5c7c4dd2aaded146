"""GEGLU's gate (Shazeer, 2020) in one pass: `hidden * gelu(gate)` with the exact gelu."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dreambooth.kernels.availability import check_available

TYPES = (torch.bfloat16, torch.float16, torch.float32)


def geglu(x: Tensor) -> Tensor:
    """Gates the first half of the last dimension with the gelu of the second.

    Args:
        x: `[..., 2D]`.

    Returns:
        `[..., D]`, of the same type; computed in fp32 where the kernel runs.
    """
    if check_available(x.device) is not None or x.dtype not in TYPES or x.numel() == 0:
        hidden, gate = x.chunk(2, dim=-1)
        return hidden * F.gelu(gate)
    result: Tensor = _Geglu.apply(x)
    return result


class _Geglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        from dreambooth.kernels.device import geglu as device

        rows = x.reshape(-1, x.shape[-1]).contiguous()
        ctx.save_for_backward(rows)
        ctx.shape = x.shape
        return device.forward(rows).view(*x.shape[:-1], x.shape[-1] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        from dreambooth.kernels.device import geglu as device

        (rows,) = ctx.saved_tensors
        return device.backward(dy.reshape(-1, dy.shape[-1]).contiguous(), rows).view(ctx.shape)
