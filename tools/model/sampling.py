"""Drawing with an exported model, as anyone would with diffusers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tools.model.errors import RecipeError

# What the sample grid shows: plain nouns, styles, colours, places, and an unknown identifier.
PROMPTS = (
    *("a photo of a robot", "a photo of a dog", "a photo of a cat", "a photo of a car"),
    *("a photo of a person", "a photo of a zombie", "a photo of a ghost", "a photo of a tree"),
    *("a robot", "a fluent 3d icon of a dog", "a red car on a blue background"),
    *("a flat icon of a house", "a photo of a bird", "a photo of a fish", "a backpack"),
    *("a photo of an alien", "a pizza", "a photo of a teddy bear", "a clock"),
    *("a glossy icon of a rocket", "a photo of a flower", "a cartoon icon of a penguin"),
    *("a photo of a dog in the snow", "a photo of a cat on the beach"),
    *("a robot on a green background", "a blue bird on a white background"),
    *("a photo of a teapot", "a photo of a vase", "a photo of a sneaker", "a photo of a candle"),
    *("a photo of a robot in the jungle", "a photo of sks robot"),
)
_COLUMNS = 8
_BATCH = 16


class Painter:
    """Draws prompts with the model in a folder."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

        if not (folder / "model_index.json").exists():
            raise RecipeError(f"{folder} is no diffusers model: it has no model_index.json.")
        pipeline: Any = StableDiffusionPipeline.from_pretrained(
            folder, safety_checker=None, local_files_only=True
        )
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        self.vae = pipeline.vae
        self._pipeline = pipeline.to(device, torch.float32)

    def draw(
        self, prompts: Sequence[str], guidance: float = 5.0, steps: int = 25, seed: int = 0
    ) -> list[Image.Image]:
        """One picture a prompt; each depends on its prompt, its place and the seed alone."""
        pictures: list[Image.Image] = []
        for begin in range(0, len(prompts), _BATCH):
            part = list(prompts[begin : begin + _BATCH])
            chances = [
                torch.Generator().manual_seed(seed * 100_000 + begin + place)
                for place in range(len(part))
            ]
            pictures += self._pipeline(
                part, num_inference_steps=steps, guidance_scale=guidance, generator=chances
            ).images
        return pictures


def write_grid(pictures: Sequence[Image.Image], path: Path) -> None:
    """One sheet, row by row, as WebP."""
    side = pictures[0].width
    sheet = Image.new("RGB", (_COLUMNS * side, -(-len(pictures) // _COLUMNS) * side), "white")
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % _COLUMNS * side, place // _COLUMNS * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "WEBP", quality=85, method=6)
