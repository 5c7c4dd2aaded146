"""LayerNorm, alone or with the residual connection before it, in one pass."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dreambooth.kernels.availability import check_available
from dreambooth.kernels.group_norm import TYPES

# Elements of a row that a program holds.
WIDEST = 4096


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Normalizes rows `[..., C]` with a layer's weight, bias and eps."""
    if not _runs_for(x, norm):
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    result: Tensor = _LayerNorm.apply(x, norm.weight, norm.bias, norm.eps)
    return result


def add_layer_norm(x: Tensor, residual: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """`x + residual`, and that normalized; both `[..., C]`."""
    if not _runs_for(x, norm) or residual.dtype != x.dtype or residual.shape != x.shape:
        added = x + residual
        return added, layer_norm(added, norm)
    result: tuple[Tensor, Tensor] = _AddLayerNorm.apply(
        x, residual, norm.weight, norm.bias, norm.eps
    )
    return result


def is_plain(norm: nn.Module) -> bool:
    """Whether a module is a LayerNorm over the last dimension with weight and bias."""
    if type(norm) is not nn.LayerNorm or len(norm.normalized_shape) > 1:
        return False
    # torch's annotations don't say that either may be missing.
    parameters: tuple[Tensor | None, ...] = (norm.weight, norm.bias)
    return all(parameter is not None for parameter in parameters)


def _runs_for(x: Tensor, norm: nn.LayerNorm) -> bool:
    tensors = (x, norm.weight, norm.bias)
    return (
        check_available(x.device) is None
        and 0 < x.shape[-1] <= WIDEST
        and x.numel() > 0
        and all(tensor.dtype in TYPES and tensor.device == x.device for tensor in tensors)
    )


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).contiguous()


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        from dreambooth.kernels.device import layer_norm as device

        rows, y, mean, rstd = device.forward(_rows(x), None, weight, bias, eps)
        ctx.save_for_backward(rows, weight, mean, rstd)
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from dreambooth.kernels.device import layer_norm as device

        dx, dweight, dbias = device.backward(_rows(dy), None, *ctx.saved_tensors)
        return dx.view(dy.shape), dweight, dbias, None


class _AddLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        from dreambooth.kernels.device import layer_norm as device

        h, y, mean, rstd = device.forward(_rows(x), _rows(residual), weight, bias, eps)
        h, y = h.view(x.shape), y.view(x.shape)
        ctx.save_for_backward(h, weight, mean, rstd)
        return h, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, dy: Tensor) -> tuple[Tensor | None, ...]:
        from dreambooth.kernels.device import layer_norm as device

        h, weight, mean, rstd = ctx.saved_tensors
        rows, dweight, dbias = device.backward(_rows(dy), _rows(dh), _rows(h), weight, mean, rstd)
        dx = rows.view(dy.shape)
        return dx, dx, dweight, dbias, None
