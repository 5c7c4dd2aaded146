"""What the pipeline needs of a family of text-to-image models.

Everything that differs between Stable Diffusion 1.x, SDXL or a flow-matching transformer sits
behind this interface; the sampler, the trainer and the stages are written against it alone.

Shapes: B batch, C latent channels, H and W picture height and width in pixels, f the VAE's
down-sampling factor, L text length in tokens, D width of the text embedding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class LatentDistribution(NamedTuple):
    """A picture as the VAE sees it: per-element mean and deviation, scaled for the denoiser.

    Both `[B, C, H/f, W/f]` float32.
    """

    mean: Tensor
    std: Tensor


class ModelFamily(Protocol):
    """One loaded base model."""

    @property
    def resolution(self) -> int:
        """Side of the square pictures it makes, in pixels."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """`(C, H/f, W/f)` of one picture."""

    @property
    def training_timesteps(self) -> int:
        """Length of the forward diffusion process in timesteps."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that an identifier token is checked against."""

    @property
    def denoiser(self) -> nn.Module:
        """The network that is always trained."""

    @property
    def text_encoder(self) -> nn.Module:
        """The network that may be trained with it."""

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """Configuration of the model's own noise schedule."""

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "ModelFamily":
        """Moves all parts; `dtype` None keeps theirs."""

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids `[B, L]` int64, padded and cut to the model's length."""

    def encode_prompt(self, token_ids: Tensor) -> Tensor:
        """Text embeddings `[B, L, D]` of `token_ids` `[B, L]`."""

    def encode_image(self, pixels: Tensor) -> LatentDistribution:
        """Latent distribution of `pixels` `[B, 3, H, W]` in [-1, 1]."""

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels `[B, 3, H, W]` in [-1, 1] of scaled latents `[B, C, H/f, W/f]`."""

    def predict(self, noisy: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
        """The denoiser's output `[B, C, H/f, W/f]` for `timesteps` `[B]`."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The forward diffusion process: `latents` at `timesteps` `[B]`."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What `predict` should have returned (noise or velocity)."""

    def add_lora(self, rank: int, alpha: float, *, text_encoder: bool, seed: int) -> None:
        """Freezes the base weights and adds trainable low-rank adapters."""

    def load_lora(self, folder: Path) -> None:
        """Adds the adapters saved by `save` and merges them for sampling."""

    def save(self, folder: Path, *, lora: bool) -> None:
        """Writes a folder that plain diffusers loads: the pipeline, or LoRA weights alone."""
