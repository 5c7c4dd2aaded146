"""A residual connection and the bias of the convolution before it, in one pass."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dreambooth.kernels.availability import check_available
from dreambooth.kernels.group_norm import TYPES, image_of, rows_of


def add_residual(x: Tensor, residual: Tensor, bias: Tensor) -> Tensor:
    """`x + residual + bias`.

    Args:
        x: `[N, C, H, W]`, what a convolution made without its bias.
        residual: Of the same shape.
        bias: `[C]`.

    Returns:
        Of `x`'s shape and type, with contiguous channels.
    """
    types = {x.dtype, residual.dtype}
    if check_available(x.device) is not None or len(types) > 1 or x.dtype not in TYPES:
        return x + bias.view(-1, *[1] * (x.dim() - 2)) + residual
    result: Tensor = _AddResidual.apply(x, residual, bias)
    return result


class _AddResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, bias: Tensor) -> Tensor:
        from dreambooth.kernels.device import residual as device

        ctx.bias_type = bias.dtype
        rows = rows_of(x)
        y = device.add(rows.flatten(0, 1), rows_of(residual).flatten(0, 1), bias)
        return image_of(y.view(rows.shape), x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from dreambooth.kernels.device import sums

        # Once, instead of wherever it is used: after a concatenation it is a part of a gradient.
        rows = rows_of(dy)
        dy = image_of(rows, dy.shape)
        dbias = None
        if ctx.needs_input_grad[2]:
            dbias = sums.column_sums(rows.flatten(0, 1), ctx.bias_type)
        return dy, dy, dbias
