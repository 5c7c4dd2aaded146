"""How a family mixes pictures with noise, and what the denoiser learns of the mixture.

All of it is tables and arithmetic on the device: no step waits for the host, so that a whole
training step can be captured in a CUDA graph.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from dreambooth.errors import UserError
from dreambooth.models.inventory import PREDICTION_TYPES


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
        self.steps = int(scheduler.config.num_train_timesteps)
        self._signal = scheduler.alphas_cumprod.float() ** 0.5
        self._noise = (1 - scheduler.alphas_cumprod.float()) ** 0.5

    def to(self, device: torch.device) -> None:
        """Moves the tables; latents and timesteps must be there, too."""
        self._signal, self._noise = self._signal.to(device), self._noise.to(device)

    def timesteps(self, times: Tensor) -> Tensor:
        """`[B]` int64 of shares of the process `[B]`; float64 shares are taken exactly."""
        return (times * self.steps).long().clamp(max=self.steps - 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`latents` at `timesteps` `[B]`."""
        return _at(self._signal, timesteps, latents) * latents + (
            _at(self._noise, timesteps, latents) * noise
        )

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should say."""
        if self._predicts_noise:
            return noise
        return _at(self._signal, timesteps, latents) * noise - (
            _at(self._noise, timesteps, latents) * latents
        )


def _at(table: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    """The entries of `timesteps`, to be multiplied with `[B, C, h, w]`."""
    return table[timesteps].to(like.dtype).view(-1, 1, 1, 1)
