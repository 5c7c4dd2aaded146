"""Pipelines of a few thousand random weights of the families beyond Stable Diffusion."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from tests.tiny import BUILTIN


def make_tiny_xl(folder: Path, *, force_zeros: bool = True) -> Path:
    """Writes a 32 px SDXL with the built-in model's tokenizer, twice, to `folder`."""
    tokenizer = CLIPTokenizer.from_pretrained(BUILTIN / "tokenizer")
    with _random_weights():
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=(1, 2),
            cross_attention_dim=16 + 24,
            attention_head_dim=(2, 4),
            norm_num_groups=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 12,
        )
        pipeline = StableDiffusionXLPipeline(
            vae=_vae(scaling_factor=0.9),
            text_encoder=CLIPTextModel(_text(tokenizer, 16)),
            text_encoder_2=CLIPTextModelWithProjection(_text(tokenizer, 24, projection_dim=12)),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=unet,
            scheduler=EulerDiscreteScheduler(
                beta_schedule="scaled_linear",
                beta_start=0.00085,
                beta_end=0.012,
                steps_offset=1,
                timestep_spacing="leading",
            ),
            force_zeros_for_empty_prompt=force_zeros,
            add_watermarker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


def make_tiny_sd3(folder: Path, *, t5: bool = False) -> Path:
    """Writes a 32 px Stable Diffusion 3 to `folder`, with a T5 or without."""
    tokenizer = CLIPTokenizer.from_pretrained(BUILTIN / "tokenizer")
    with _random_weights():
        transformer = SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=8,
            out_channels=8,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=48,
            caption_projection_dim=32,
            pooled_projection_dim=12 + 20,
            pos_embed_max_size=16,
        )
        words = T5TokenizerFast(vocab=_words(), extra_ids=0) if t5 else None
        encoder = T5EncoderModel(_t5_config(len(words))) if words is not None else None
        pipeline = StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_vae(
                scaling_factor=1.5,
                shift_factor=0.06,
                latent_channels=8,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            text_encoder=CLIPTextModelWithProjection(_text(tokenizer, 16, projection_dim=12)),
            text_encoder_2=CLIPTextModelWithProjection(_text(tokenizer, 24, projection_dim=20)),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            text_encoder_3=encoder,
            tokenizer_3=words,
        )
    pipeline.save_pretrained(folder)
    return folder


@contextmanager
def _random_weights() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _vae(**settings: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
        **settings,
    )


def _text(tokenizer: CLIPTokenizer, width: int, **settings: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        **settings,
    )


def _words() -> list[tuple[str, float]]:
    control = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = ("photo", "of", "a", "sks", "dog", "red")
    return control + [(f"▁{word}", -1.0) for word in words] + [("▁", -3.0)]


def _t5_config(words: int) -> T5Config:
    return T5Config(
        vocab_size=words,
        d_model=48,
        d_kv=8,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
