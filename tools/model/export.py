"""The trained networks as a folder that plain diffusers loads."""

import shutil
from pathlib import Path
from typing import Any

import torch

from tools.model.errors import RecipeError
from tools.model.networks import SCHEDULE

_LARGEST = 40 * 2**20


def export_pipeline(target: Path, vae: Any, unet: Any, text_encoder: Any, tokenizer: Any) -> None:
    """Writes a `StableDiffusionPipeline` in float16; whole or not at all.

    Raises:
        RecipeError: If `target` exists, or the model is too large to be shipped.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    if target.exists():
        raise RecipeError(f"{target} exists. Move it away, or choose another folder.")
    pipeline = StableDiffusionPipeline(
        vae=vae.half().to(memory_format=torch.contiguous_format),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        unet=unet.half().to(memory_format=torch.contiguous_format),
        scheduler=DDIMScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    # Where the networks were loaded from is nobody's concern.
    for network in (vae, unet):
        network.register_to_config(_name_or_path="")
    unfinished = target.with_name(f"{target.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    pipeline.save_pretrained(unfinished)
    size = sum(file.stat().st_size for file in unfinished.rglob("*") if file.is_file())
    if size > _LARGEST:
        raise RecipeError(f"{unfinished} has {size} bytes; at most {_LARGEST} can be shipped.")
    unfinished.rename(target)
