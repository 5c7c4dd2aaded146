"""This project's optimizer, as the step's bench runs it."""

from collections.abc import Sequence

from torch import nn

from dreambooth.kernels.adamw import make_adamw


class OurMasters:
    """Gradients are handed over by autograd, so they are dropped before every backward pass."""

    def __init__(
        self,
        weights: Sequence[nn.Parameter],
        learning_rate: float,
        weight_decay: float,
        clip: float,
    ) -> None:
        self._adamw = make_adamw(
            weights, lr=learning_rate, weight_decay=weight_decay, max_norm=clip
        )
        self.name = type(self._adamw).__name__
        self.step = self._adamw.step
        self.clear = self._adamw.zero_grad
        self.bind = self._adamw.bind
