"""A safety checker of a few thousand random weights, and what plain diffusers says with it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import (
    StableDiffusionSafetyChecker,
    cosine_distance,
)
from numpy.typing import NDArray
from transformers import CLIPConfig, CLIPImageProcessor

ALL, NONE = -2.0, 2.0
SIDE = 16


def add_checker(
    model: Path, threshold: float = NONE, *, special: float = NONE, seed: int = 0
) -> Path:
    """Gives the diffusers folder `model` a checker as published models have it.

    Args:
        model: Its index is changed, too.
        threshold: Of the first concept; `ALL` flags every picture, `NONE` none.
        special: Of the first of those that make all thresholds stricter.
        seed: Of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vision = {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": 8,
        }
        text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        text |= {"num_attention_heads": 2}
        checker = StableDiffusionSafetyChecker(
            CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        )
        for embeds in (checker.concept_embeds, checker.special_care_embeds):
            torch.nn.init.normal_(embeds)
        for weights, first in (
            (checker.concept_embeds_weights, threshold),
            (checker.special_care_embeds_weights, special),
        ):
            weights.data.fill_(NONE)[0] = first
    checker.save_pretrained(model / "safety_checker")
    CLIPImageProcessor(
        size={"shortest_edge": SIDE + 4}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(model / "feature_extractor")
    change_index(
        model,
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        requires_safety_checker=True,
    )
    return model


def change_index(model: Path, **entries: Any) -> None:
    """Sets entries of the model's index."""
    file = model / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def cosines(model: Path, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """How near each picture is to the first concept, by the classes of others alone."""
    checker = StableDiffusionSafetyChecker.from_pretrained(model / "safety_checker")
    processor = CLIPImageProcessor.from_pretrained(model / "feature_extractor")
    pixels = processor(list(pictures), return_tensors="pt").pixel_values
    with torch.no_grad():
        embeds = checker.visual_projection(checker.vision_model(pixels)[1])
        near = cosine_distance(embeds, checker.concept_embeds)[:, 0]
    return np.asarray(near.numpy(), dtype=np.float32)


def between(values: NDArray[np.float32], fewest: int, most: int) -> float:
    """A threshold that at least `fewest` and at most `most` of `values` are above.

    In the widest gap there, because pictures are made smaller a little otherwise than here.
    """
    ordered = np.sort(values)[::-1]
    gaps = [(ordered[n - 1] - ordered[n], n) for n in range(fewest, most + 1)]
    _, flagged = max(gaps)
    return float(ordered[flagged - 1] + ordered[flagged]) / 2
