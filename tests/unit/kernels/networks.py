"""Small networks of the kinds that are fused, and what they compute."""

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor


def a_unet(**changes: object) -> Any:
    """A UNet with every kind of block that Stable Diffusion's has, in the channels_last format."""
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "sample_size": 4,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 12,
        "attention_head_dim": 2,
        "norm_num_groups": 2,
    }
    unet = UNet2DConditionModel(**{**settings, **changes})
    # Fresh norms and biases are ones and zeros, which hide what is left out.
    for parameter in unet.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return unet.to(memory_format=torch.channels_last)


def a_vae() -> Any:
    """An autoencoder with attention in the middle."""
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
    ).to(memory_format=torch.channels_last)


def predict(unet: Any) -> Tensor:
    """The prediction for two fixed latents, `[2, 4, 4, 4]`."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 4, 4, 4, generator=generator).contiguous(memory_format=torch.channels_last)
    text = torch.randn(2, 5, unet.config.cross_attention_dim, generator=generator)
    result: Tensor = unet(x, torch.tensor([3, 700]), text).sample
    return result


def gradients(unet: Any) -> dict[str, Tensor]:
    """Those of a loss over the prediction, of the parameters that have one."""
    unet.zero_grad()
    predict(unet).square().mean().backward()
    named = unet.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


@torch.no_grad()
def decode_and_encode(vae: Any) -> tuple[Tensor, Tensor]:
    """A decoded latent and the mean of an encoded image."""
    generator = torch.Generator().manual_seed(3)
    latent = torch.randn(1, 4, 2, 2, generator=generator)
    image = torch.randn(1, 3, 6, 6, generator=generator)
    return vae.decode(latent).sample, vae.encode(image).latent_dist.mean
