"""Which convolutions, linear layers and attentions a network's forward pass is made of."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

SUM = {"conv": "convolutions", "linear": "linear layers", "attention": "attention"}


@dataclass(frozen=True)
class Conv:
    """A convolution: input `[N, C, H, W]`, weight `[O, C, k, k]`."""

    input: tuple[int, ...]
    weight: tuple[int, ...]
    stride: int
    padding: int
    kind: str = "conv"

    @property
    def flops(self) -> float:
        """Of the forward pass, a multiplication and an addition counted as two."""
        n, _, height, width = self.input
        out, channels, kernel, _ = self.weight
        rows, columns = (
            (edge + 2 * self.padding - kernel) // self.stride + 1 for edge in (height, width)
        )
        return 2.0 * n * rows * columns * out * channels * kernel * kernel


@dataclass(frozen=True)
class Linear:
    """A linear layer: input `[…, K]`, weight `[N, K]`."""

    input: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool
    kind: str = "linear"

    @property
    def flops(self) -> float:
        """Of the forward pass."""
        rows = 1
        for edge in self.input[:-1]:
            rows *= edge
        return 2.0 * rows * self.weight[0] * self.weight[1]


@dataclass(frozen=True)
class Attention:
    """Scaled dot-product attention: query `[B, h, Lq, d]`, key and value `[B, h, Lk, d]`."""

    query: tuple[int, ...]
    key: tuple[int, ...]
    kind: str = "attention"

    @property
    def flops(self) -> float:
        """Of the two matrix products of the forward pass."""
        batch, heads, queries, width = self.query
        return 4.0 * batch * heads * queries * self.key[2] * width


Shape = Conv | Linear | Attention


def collect(forward: Callable[[], object]) -> Counter[Shape]:
    """What `forward` computes, with how often; give it tensors on the meta device."""
    found: Counter[Shape] = Counter()
    with _Recorder(found), torch.no_grad():
        forward()
    return found


class _Recorder(TorchFunctionMode):
    def __init__(self, found: Counter[Shape]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.conv2d:
            self._found[_conv(*args, **(kwargs or {}))] += 1
        elif func is F.linear:
            self._found[_linear(*args, **(kwargs or {}))] += 1
        elif func is F.scaled_dot_product_attention:
            query, key = [*args, *(kwargs or {}).values()][:2]
            self._found[Attention(tuple(query.shape), tuple(key.shape))] += 1
        return func(*args, **(kwargs or {}))


def _conv(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, *_: Any
) -> Conv:
    return Conv(tuple(input.shape), tuple(weight.shape), _first(stride), _first(padding))


def _linear(input: Any, weight: Any, bias: Any = None) -> Linear:
    return Linear(tuple(input.shape), tuple(weight.shape), bias is not None)


def _first(value: Any) -> int:
    return int(value[0]) if isinstance(value, tuple | list) else int(value)
