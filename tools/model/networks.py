"""The model's three networks and its noise schedule: what each is, before it learned anything."""

from dataclasses import dataclass
from typing import Any

from tools.model.picture import SIZE
from tools.model.tokenizer import LENGTH

# A latent's side and channels.
LATENT, CHANNELS = SIZE // 4, 4
STEPS = 1000
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": STEPS,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class Widths:
    """Channels of the networks' levels; the depth is the same in all sizes.

    Attributes:
        text: Of a token; the text encoder has heads of 32.
        groups: Channels are normalised in so many groups, in autoencoder and UNet.
    """

    autoencoder: tuple[int, int, int] = (32, 64, 128)
    unet: tuple[int, int, int] = (64, 128, 192)
    text: int = 192
    groups: tuple[int, int] = (16, 32)


def new_autoencoder(widths: Widths) -> Any:
    """`diffusers.AutoencoderKL` from SIZE to LATENT; 2.57 M parameters by default."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=widths.autoencoder,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=widths.groups[0],
        sample_size=SIZE,
        # Mean and deviation of latents are folded into the 1 × 1 convolutions (vae.py).
        scaling_factor=1.0,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def new_unet(widths: Widths) -> Any:
    """`diffusers.UNet2DConditionModel`; 11.01 M parameters by default."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=widths.unet,
        layers_per_block=1,
        cross_attention_dim=widths.text,
        # Heads, in spite of the name.
        attention_head_dim=tuple(width // 32 for width in widths.unet),
        norm_num_groups=widths.groups[1],
    )


def new_text_encoder(widths: Widths, tokenizer: Any) -> Any:
    """`transformers.CLIPTextModel`; 2.57 M parameters by default."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=widths.text,
            intermediate_size=4 * widths.text,
            num_hidden_layers=4,
            num_attention_heads=widths.text // 32,
            max_position_embeddings=LENGTH,
            projection_dim=widths.text,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
