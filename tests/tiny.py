"""A Stable-Diffusion-shaped pipeline of a few thousand random weights: milliseconds a picture."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import dreambooth.models

BUILTIN = Path(dreambooth.models.__file__).parent / "builtin" / "emoji"


def make_tiny_model(folder: Path, *, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Writes a 32 px pipeline with the built-in model's tokenizer to `folder`."""
    tokenizer = CLIPTokenizer.from_pretrained(BUILTIN / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=(2, 4),
            norm_num_groups=8,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            sample_size=32,
            scaling_factor=1.0,
            mid_block_add_attention=False,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=32,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.eos_token_id,
            )
        )
    scheduler_class = PNDMScheduler if prediction_type == "epsilon" else DDIMScheduler
    own = {"skip_prk_steps": True} if scheduler_class is PNDMScheduler else {"clip_sample": False}
    scheduler = scheduler_class(
        beta_schedule="squaredcos_cap_v2", prediction_type=prediction_type, steps_offset=1, **own
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder
