"""Convolutions of channels_last images, without the passes torch makes beside cuDNN's kernel.

torch adds a convolution's bias in a pass of its own; where a norm or a residual connection
follows, that can do it. A 1 x 1 convolution is a matrix multiplication of the pixels' rows, whose
library adds the bias on the way.
"""

from typing import TypeGuard

import torch.nn.functional as F
from torch import Tensor, nn

from dreambooth.kernels.linear import linear


def convolve(conv: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Convolves `[N, C, H, W]`; the bias is still to be added if one is returned.

    Whatever is more than a convolution (an adapter, a hook) is called as it is.
    """
    if not is_plain(conv) or conv.bias is None:
        return conv(x), None
    result = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    return result, conv.bias


def pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """Convolves `[N, C, H, W]`, as a matrix multiplication if its kernel is a single pixel."""
    if not is_plain(conv) or not _is_pointwise(conv):
        result: Tensor = conv(x)
        return result
    rows = x.permute(0, 2, 3, 1)
    return linear(rows, conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)


def is_plain(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution and nothing more."""
    return (
        type(conv) is nn.Conv2d
        and conv.padding_mode == "zeros"
        and not conv._forward_hooks
        and not conv._forward_pre_hooks
    )


def _is_pointwise(conv: nn.Conv2d) -> bool:
    return (
        conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and conv.padding in ((0, 0), "valid")
        and conv.groups == 1
    )
