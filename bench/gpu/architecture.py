"""Networks shaped like those of CompVis/stable-diffusion-v1-4, with random weights.

Speed and memory do not depend on the weights' values, so these stand in for the checkpoint on a
machine that has no model hub. `TINY` has the same parts, small enough to try a bench on a CPU.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

# It warns of casting modules to a type, which is what all do who train or draw with them.
logging.set_verbosity_error()

TEXT_LENGTH = 77
SEED = 0


@dataclass(frozen=True)
class Architecture:
    """Sizes of the three networks; pictures are eight times as wide as their latents."""

    name: str
    latent_side: int
    unet_channels: tuple[int, ...]
    heads: int
    vae_channels: tuple[int, ...]
    text_width: int
    text_layers: int
    text_heads: int
    vocabulary: int = 49408

    @property
    def factor(self) -> int:
        """How much wider pictures are than latents."""
        return int(2 ** (len(self.vae_channels) - 1))

    @property
    def side(self) -> int:
        """Side of the pictures in pixels."""
        return self.latent_side * self.factor

    def unet(self) -> UNet2DConditionModel:
        """The denoiser, on torch's default device."""
        torch.manual_seed(SEED)
        with_attention = len(self.unet_channels) - 1
        return UNet2DConditionModel(
            sample_size=self.latent_side,
            in_channels=4,
            out_channels=4,
            block_out_channels=self.unet_channels,
            down_block_types=("CrossAttnDownBlock2D",) * with_attention + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * with_attention,
            layers_per_block=2,
            cross_attention_dim=self.text_width,
            attention_head_dim=self.heads,
        )

    def vae(self) -> AutoencoderKL:
        """The autoencoder, on torch's default device."""
        torch.manual_seed(SEED)
        return AutoencoderKL(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            sample_size=self.side,
            layers_per_block=2,
            block_out_channels=self.vae_channels,
            down_block_types=("DownEncoderBlock2D",) * len(self.vae_channels),
            up_block_types=("UpDecoderBlock2D",) * len(self.vae_channels),
        )

    def text_encoder(self) -> CLIPTextModel:
        """The text encoder, on torch's default device."""
        torch.manual_seed(SEED)
        return CLIPTextModel(
            CLIPTextConfig(
                vocab_size=self.vocabulary,
                hidden_size=self.text_width,
                intermediate_size=4 * self.text_width,
                num_hidden_layers=self.text_layers,
                num_attention_heads=self.text_heads,
                max_position_embeddings=TEXT_LENGTH,
                hidden_act="quick_gelu",
                projection_dim=self.text_width,
            )
        )

    def unet_inputs(self, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, timesteps and text embeddings, on torch's default device."""
        side = self.latent_side
        return (
            # Drawn in float32, so that every type starts from the same numbers.
            torch.randn(batch, 4, side, side).to(dtype),
            torch.randint(0, 1000, (batch,)),
            torch.randn(batch, TEXT_LENGTH, self.text_width).to(dtype),
        )

    def pixels(self, batch: int, dtype: torch.dtype) -> Tensor:
        """Pictures for the VAE, on torch's default device."""
        return torch.randn(batch, 3, self.side, self.side).to(dtype)

    def latents(self, batch: int, dtype: torch.dtype) -> Tensor:
        """Latents for the VAE, on torch's default device."""
        return torch.randn(batch, 4, self.latent_side, self.latent_side).to(dtype)

    def token_ids(self, batch: int) -> Tensor:
        """Random text, on torch's default device."""
        return torch.randint(0, self.vocabulary - 1, (batch, TEXT_LENGTH))


SD14 = Architecture(
    name="CompVis/stable-diffusion-v1-4",
    latent_side=64,
    unet_channels=(320, 640, 1280, 1280),
    heads=8,
    vae_channels=(128, 256, 512, 512),
    text_width=768,
    text_layers=12,
    text_heads=12,
)
TINY = Architecture(
    name="the same parts, tiny",
    latent_side=16,
    unet_channels=(32, 64),
    heads=2,
    vae_channels=(32, 64),
    text_width=32,
    text_layers=2,
    text_heads=2,
)


def parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())
