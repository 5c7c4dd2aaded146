"""How a family mixes pictures with noise, and what the denoiser learns of the mixture.

All of it is tables and arithmetic on the device: no step waits for the host, so that a whole
training step can be captured in a CUDA graph.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from dreambooth.errors import UserError
from dreambooth.models.layouts import PREDICTION_TYPES


class NoiseProcess(Protocol):
    """How pictures become noise; timesteps are the process's own."""

    def to(self, device: torch.device) -> None:
        """Moves its tables; latents and timesteps must be there, too."""

    def timesteps(self, times: Tensor) -> Tensor:
        """`[B]` of shares of the process `[B]` in [0, 1); float64 shares are taken exactly."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`latents` at `timesteps` `[B]`."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should say."""


class DiffusionProcess:
    """The variance-preserving process of Ho et al. 2020 (arXiv 2006.11239).

    What is learned is the noise, or the velocity of Salimans and Ho 2022 (arXiv 2202.00512).
    Computes as diffusers' `DDPMScheduler` does, bit for bit.
    """

    def __init__(self, scheduler_config: Mapping[str, Any]) -> None:
        """Takes the noise schedule from a diffusers scheduler's configuration.

        Raises:
            UserError: If the model predicts something else.
        """
        scheduler = DDPMScheduler.from_config(dict(scheduler_config))
        kind = scheduler.config.prediction_type
        if kind not in PREDICTION_TYPES:
            raise UserError(
                f"the model predicts {kind!r}, which cannot be trained here",
                field="spec.model",
                remedy="Use a model whose scheduler predicts one of "
                f"{', '.join(PREDICTION_TYPES)}.",
                reason="UnsupportedModel",
            )
        self._predicts_noise = kind == "epsilon"
        self._steps = int(scheduler.config.num_train_timesteps)
        self._signal = scheduler.alphas_cumprod.float() ** 0.5
        self._noise = (1 - scheduler.alphas_cumprod.float()) ** 0.5

    def to(self, device: torch.device) -> None:
        """Moves the tables."""
        self._signal, self._noise = self._signal.to(device), self._noise.to(device)

    def timesteps(self, times: Tensor) -> Tensor:
        """`[B]` int64, evenly."""
        return (times * self._steps).long().clamp(max=self._steps - 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`latents` at `timesteps` `[B]`."""
        return _at(self._signal, timesteps, latents) * latents + (
            _at(self._noise, timesteps, latents) * noise
        )

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noise, or the velocity."""
        if self._predicts_noise:
            return noise
        return _at(self._signal, timesteps, latents) * noise - (
            _at(self._noise, timesteps, latents) * latents
        )


class FlowProcess:
    """The rectified flow of Stable Diffusion 3 (Esser et al. 2024, arXiv 2403.03206).

    Noise and picture are mixed along a straight line, and what is learned is the way from the one
    to the other. Times follow a logit-normal distribution, which favours the middle of the line,
    and are shifted towards the noise as the model's scheduler is.
    """

    def __init__(self, scheduler_config: Mapping[str, Any]) -> None:
        """Takes the shift from the configuration of a `FlowMatchEulerDiscreteScheduler`."""
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(dict(scheduler_config))
        self._steps = int(scheduler.config.num_train_timesteps)
        self._shift = float(scheduler.config.shift)

    def to(self, device: torch.device) -> None:
        """Has nothing to move."""

    def timesteps(self, times: Tensor) -> Tensor:
        """`[B]` float32 in (0, 1000], the quantiles `times` of their distribution."""
        share = torch.sigmoid(torch.special.ndtri(times)).clamp(1.0 / self._steps, 1.0)
        shifted = self._shift * share / (1.0 + (self._shift - 1.0) * share)
        return (shifted * self._steps).float()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`latents` at `timesteps` `[B]` of the line."""
        sigma = (timesteps / self._steps).to(latents.dtype).view(-1, 1, 1, 1)
        return (1.0 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The line's direction, the same everywhere on it."""
        return noise - latents


def _at(table: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    """The entries of `timesteps`, to be multiplied with `[B, C, h, w]`."""
    return table[timesteps].to(like.dtype).view(-1, 1, 1, 1)
