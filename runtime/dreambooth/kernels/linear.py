"""A linear layer's backward with the bias's gradient in one quick, repeatable pass.

The forward is torch's own, where the library's matrix multiplication adds the bias on its way.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dreambooth.kernels.availability import check_available, is_autocast
from dreambooth.kernels.group_norm import TYPES


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x @ weight.T + bias`.

    Args:
        x: `[..., K]`.
        weight: `[D, K]`.
        bias: `[D]`.

    Returns:
        `[..., D]`.
    """
    if bias is None or not _runs_for(x, weight, bias):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and bias.requires_grad:
        result: Tensor = _Linear.apply(x, weight, bias)
        return result
    # Two dimensions are what the multiplication with the bias in it takes.
    return F.linear(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)


def _runs_for(*tensors: Tensor) -> bool:
    x = tensors[0]
    return (
        check_available(x.device) is None
        and x.numel() > 0
        and not is_autocast(x.device)
        and x.dtype in TYPES
        and all(tensor.dtype == x.dtype and tensor.device == x.device for tensor in tensors)
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from dreambooth.kernels.device import sums

        x, weight = ctx.saved_tensors
        slope = dy.reshape(-1, dy.shape[-1]).contiguous()
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx = (slope @ weight).view(x.shape)
        if ctx.needs_input_grad[1]:
            dweight = slope.t() @ x.reshape(-1, x.shape[-1])
        if ctx.needs_input_grad[2]:
            dbias = sums.column_sums(slope, weight.dtype)
        return dx, dweight, dbias
