"""Batched sampling."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from dreambooth.models.schedulers import SCHEDULERS
from dreambooth.models.stable_diffusion import StableDiffusion
from dreambooth.sampling.sampler import Sampler
from dreambooth.sampling.settings import SamplingSettings, picture_seed

CPU = torch.device("cpu")


def sampler(folder: Path, dtype: torch.dtype | None = None) -> Sampler:
    return Sampler(StableDiffusion.load(folder).to(CPU, dtype), CPU)


@pytest.mark.parametrize("scheduler", [None, *SCHEDULERS])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_pictures_equal_those_of_the_diffusers_pipeline(
    tiny_model: Path, scheduler: str | None, guidance: float
) -> None:
    """Same noise, same scheduler, same guidance: at most one grey level apart from rounding."""
    ours = sampler(tiny_model).sample(
        ["a photo of a dog"], [7], SamplingSettings(scheduler, 4, guidance, "blurry")
    )
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    from dreambooth.models.schedulers import make_scheduler

    pipeline.scheduler = make_scheduler(scheduler, dict(pipeline.scheduler.config))
    theirs = pipeline(
        "a photo of a dog",
        negative_prompt="blurry",
        num_inference_steps=4,
        guidance_scale=guidance,
        latents=torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7)),
    ).images
    difference = np.abs(ours[0].astype(int) - np.asarray(theirs[0]).astype(int))
    assert difference.max() <= 1


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_picture_does_not_depend_on_its_neighbours_or_its_place(
    tiny_model: Path, dtype: torch.dtype | None
) -> None:
    """The batch's size is fixed, so the same kernels run; its other rows must not matter."""
    draw = sampler(tiny_model, dtype)
    settings = SamplingSettings("dpmsolver++", 3, 5.0)
    first = draw.sample(["a dog"] + ["a cat"] * 7, list(range(8)), settings)
    second = draw.sample(["a car"] * 5 + ["a dog"] + ["a fox"] * 2, [9] * 5 + [0, 8, 8], settings)
    assert np.array_equal(first[0], second[5])


def test_a_pictures_seed_depends_on_all_that_names_it_and_nothing_else() -> None:
    names = [(0, "a dog", 0, 0), (1, "a dog", 0, 0), (0, "a cat", 0, 0), (0, "a dog", 1, 0),
             (0, "a dog", 0, 1)]  # fmt: skip
    seeds = [picture_seed(*name) for name in names]
    assert len(set(seeds)) == len(names)
    assert seeds == [picture_seed(*name) for name in names]
    assert all(0 <= seed < 2**63 for seed in seeds)
