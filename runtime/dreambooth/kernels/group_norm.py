"""GroupNorm of channels_last images, alone or with the SiLU that follows it.

torch's own copies a channels_last image to the contiguous format first and rounds between the
norm and the activation. Here it is read twice and written once where it lies, forward, and read
twice and written once more for the gradient; statistics and the activation are in fp32. Where the
kernels can't run, torch's own operations do.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dreambooth.kernels.availability import check_available

TYPES = (torch.bfloat16, torch.float16, torch.float32)


def group_norm(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    shift: Tensor | None = None,
) -> Tensor:
    """Normalizes groups of channels to mean 0 and variance 1, then scales and shifts.

    Args:
        x: `[N, C, H, W]` or `[N, C, L]`; fastest where the channels are contiguous in memory.
        groups: How many.
        weight: `[C]`.
        bias: `[C]`.
        eps: Added to the variance.
        shift: `[N, C]`, added to every pixel of `x` first: a convolution's bias, an embedding.

    Returns:
        Of `x`'s shape and type, with contiguous channels.
    """
    if not _runs_for(x, weight, bias):
        return F.group_norm(_shifted(x, shift), groups, weight, bias, eps)
    result: Tensor = _GroupNorm.apply(x, shift, weight, bias, groups, eps, False)
    return result


def group_norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    shift: Tensor | None = None,
) -> Tensor:
    """The same, then `y * sigmoid(y)`, in one pass."""
    if not _runs_for(x, weight, bias):
        return F.silu(F.group_norm(_shifted(x, shift), groups, weight, bias, eps))
    result: Tensor = _GroupNorm.apply(x, shift, weight, bias, groups, eps, True)
    return result


def _shifted(x: Tensor, shift: Tensor | None) -> Tensor:
    return x if shift is None else x + shift.unflatten(-1, (-1, *[1] * (x.dim() - 2)))


def _runs_for(x: Tensor, *weights: Tensor) -> bool:
    return (
        check_available(x.device) is None
        and x.dim() in (3, 4)
        and x.numel() > 0
        and all(tensor.dtype in TYPES and tensor.device == x.device for tensor in (x, *weights))
    )


def rows_of(x: Tensor) -> Tensor:
    """An image's pixels as rows of channels, `[N, P, C]`; copied only if it lies otherwise."""
    return x.movedim(1, -1).contiguous().flatten(1, -2)


def image_of(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """The reverse of `rows_of`, for an image `[N, C, ...]` of that shape; a view."""
    images, channels, *size = shape
    return rows.view(images, *size, channels).movedim(-1, 1)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shift: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        silu: bool,
    ) -> Tensor:
        from dreambooth.kernels.device import group_norm as device

        rows = rows_of(x)
        shift = None if shift is None else shift.contiguous()
        y, mean, rstd = device.forward(rows, shift, weight, bias, groups, eps, silu)
        ctx.save_for_backward(rows, shift, weight, bias, mean, rstd)
        ctx.groups, ctx.silu, ctx.shape = groups, silu, x.shape
        return image_of(y, x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from dreambooth.kernels.device import group_norm as device

        rows, shift, weight, bias, mean, rstd = ctx.saved_tensors
        dx, dweight, dbias, dshift = device.backward(
            rows_of(dy), rows, shift, weight, bias, mean, rstd, ctx.groups, ctx.silu
        )
        return image_of(dx, ctx.shape), dshift, dweight, dbias, None, None, None
