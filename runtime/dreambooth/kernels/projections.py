"""Several linear projections of the same input as one matrix multiplication.

Query, key and value weights are laid side by side in one block of memory, each parameter a view of
its part. The parameters stay what they are, for the state dict, the optimizer and whoever loads the
model; and there is no second copy that could be out of date.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dreambooth.kernels.availability import is_autocast


def join_weights(layers: Sequence[nn.Module]) -> None:
    """Lays the layers' weights side by side in memory; does nothing to layers it can't join."""
    weights = [_plain_weight(layer) for layer in layers]
    plain = [weight for weight in weights if weight is not None]
    if len(plain) < len(layers) or len({_kind(weight) for weight in plain}) > 1:
        return
    joined = torch.cat([weight.detach() for weight in plain])
    for weight, part in zip(plain, joined.split([len(weight) for weight in plain]), strict=True):
        weight.data = part


def part_weights(layers: Sequence[nn.Module]) -> None:
    """Gives each layer's weight memory of its own again."""
    for layer in layers:
        weight = _plain_weight(layer)
        if weight is not None:
            weight.data = weight.detach().clone()


def project(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """Each layer's projection of the same input.

    Args:
        x: `[..., K]`.
        layers: Linear layers, or what adapters made of them: then they are called one by one, as
            they are where their weights don't lie side by side.

    Returns:
        One `[..., D]` each; views of one tensor if they were computed together.
    """
    weights = _joined(layers)
    if weights is None or is_autocast(x.device):
        return tuple(layer(x) for layer in layers)
    if not torch.is_grad_enabled() or not (
        x.requires_grad or any(weight.requires_grad for weight in weights)
    ):
        return tuple(_together(x, weights))
    results: tuple[Tensor, ...] = _Projections.apply(x, *weights)
    return results


class _Projections(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, *weights)
        return tuple(_together(x, weights))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # Separate multiplications: to bring the gradients together would be a pass over them.
        x, *weights = ctx.saved_tensors
        rows = x.flatten(0, -2)
        slopes = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        dx: Tensor | None = None
        if ctx.needs_input_grad[0]:
            dx = slopes[0] @ weights[0]
            for slope, weight in zip(slopes[1:], weights[1:], strict=True):
                dx.addmm_(slope, weight)
            dx = dx.view(x.shape)
        dweights = [
            slope.t() @ rows if needed else None
            for slope, needed in zip(slopes, ctx.needs_input_grad[1:], strict=True)
        ]
        return dx, *dweights


def _together(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    sizes = [weight.shape[0] for weight in weights]
    joined = weights[0].detach().as_strided((sum(sizes), x.shape[-1]), (x.shape[-1], 1))
    results: tuple[Tensor, ...] = F.linear(x, joined).split(sizes, dim=-1)
    return results


def _joined(layers: Sequence[nn.Module]) -> list[Tensor] | None:
    """The layers' weights if they are plain and lie side by side, in this order."""
    weights: list[Tensor] = []
    for layer in layers:
        weight = _plain_weight(layer)
        if weight is None or not weight.is_contiguous():
            return None
        if weights and not _follows(weight, weights[-1]):
            return None
        weights.append(weight)
    return weights


def _follows(weight: Tensor, last: Tensor) -> bool:
    return (
        _kind(weight) == _kind(last)
        and weight.untyped_storage().data_ptr() == last.untyped_storage().data_ptr()
        and weight.data_ptr() == last.data_ptr() + last.numel() * last.element_size()
    )


def _plain_weight(layer: nn.Module) -> Tensor | None:
    """The weight, if that is all there is to a layer: no bias, no adapter, no hook."""
    if type(layer) is not nn.Linear or layer._forward_hooks or layer._forward_pre_hooks:
        return None
    bias: Tensor | None = layer.bias
    return layer.weight if bias is None else None


def _kind(weight: Tensor) -> tuple[torch.dtype, torch.device, int]:
    return weight.dtype, weight.device, weight.shape[1]
