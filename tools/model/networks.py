"""The model's three networks and its noise schedule: what each is, before it learned anything."""

from typing import Any

from tools.model.picture import SIZE
from tools.model.tokenizer import LENGTH

# A latent's side and channels.
LATENT, CHANNELS = SIZE // 4, 4
WIDTH = 192
STEPS = 1000
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": STEPS,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def new_autoencoder() -> Any:
    """`diffusers.AutoencoderKL`, 2.57 M parameters: SIZE to LATENT."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=16,
        sample_size=SIZE,
        # Mean and deviation of latents are folded into the 1 × 1 convolutions (vae.py).
        scaling_factor=1.0,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def new_unet() -> Any:
    """`diffusers.UNet2DConditionModel`, 11.01 M parameters."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128, WIDTH),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=(2, 4, 6),
        norm_num_groups=32,
    )


def new_text_encoder(tokenizer: Any) -> Any:
    """`transformers.CLIPTextModel`, 2.57 M parameters."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=6,
            max_position_embeddings=LENGTH,
            projection_dim=WIDTH,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
