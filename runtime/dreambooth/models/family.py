"""What the pipeline needs of a family of text-to-image models.

Everything that differs between Stable Diffusion 1.x, SDXL or a flow-matching transformer sits
behind this interface; the sampler, the trainer and the stages are written against it alone.

Shapes: B batch, C latent channels, H and W picture height and width in pixels, f the VAE's
down-sampling factor.

Between `timesteps` and `target` everything stays on the device and nothing waits for the host: a
training step is captured in a CUDA graph.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dreambooth.models.conditioning import Conditioning


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
    def tokenizer(self) -> Any:
        """The tokenizer that an identifier token is checked against."""

    @property
    def denoiser(self) -> nn.Module:
        """The network that is always trained."""

    @property
    def text_encoders(self) -> tuple[nn.Module, ...]:
        """The networks that may be trained with it; there may be more that never are."""

    @property
    def autoencoder(self) -> nn.Module:
        """The network between pictures and latents; never trained."""

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """Configuration of the model's own noise schedule."""

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "ModelFamily":
        """Moves all parts; `dtype` None keeps theirs."""

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Token ids `[B, L_i]` int64 for each text encoder, padded and cut to its length."""

    def encode_prompt(self, token_ids: tuple[Tensor, ...]) -> Conditioning:
        """What the denoiser is told of `token_ids`, which are as `tokenize` gives them."""

    def encode_image(self, pixels: Tensor) -> LatentDistribution:
        """Latent distribution of `pixels` `[B, 3, H, W]` in [-1, 1]."""

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels `[B, 3, H, W]` in [-1, 1] of scaled latents `[B, C, H/f, W/f]`."""

    def timesteps(self, times: Tensor) -> Tensor:
        """What `predict`, `add_noise` and `target` take for shares of the noise process.

        Args:
            times: `[B]` in [0, 1), on the model's device; spread evenly, they become the family's
                own distribution of timesteps. As float64, they are taken exactly.
        """

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's output `[B, C, H/f, W/f]` for `timesteps` `[B]`."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The forward process: `latents` at `timesteps` `[B]`."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What `predict` should have returned (noise or velocity)."""

    def unfreeze(self, *, text_encoder: bool) -> None:
        """Makes the denoiser's weights trainable and, with `text_encoder`, the text encoders'.

        Each of them gets a gradient: weights that nothing depends on stay frozen.
        """

    def add_lora(self, rank: int, alpha: float, *, text_encoder: bool, seed: int) -> None:
        """Freezes the base weights and adds trainable low-rank adapters."""

    def load_lora(self, folder: Path) -> None:
        """Adds the adapters saved by `save` and merges them for sampling."""

    def save(self, folder: Path, *, lora: bool) -> None:
        """Writes a folder that plain diffusers loads: the pipeline, or LoRA weights alone."""


def trained_networks(model: ModelFamily) -> dict[str, nn.Module]:
    """The networks that may be trained, by the name that checkpoints give their weights."""
    networks = {"denoiser": model.denoiser}
    for number, encoder in enumerate(model.text_encoders, start=1):
        networks["text_encoder" if number == 1 else f"text_encoder_{number}"] = encoder
    return networks
