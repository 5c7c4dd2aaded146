"""The safety checker flags what diffusers' own flags, and goes along with the tuned model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreambooth.errors import UserError
from dreambooth.models.safety import SafetyChecker, keep_checker
from dreambooth.models.stable_diffusion import StableDiffusion
from tests.tiny_checker import ALL, NONE, add_checker, between, change_index, cosines

CPU = torch.device("cpu")
WEIGHTS = "safety_checker/model.safetensors"


def some_pictures(count: int, side: int = 32) -> Tensor:
    """`[count, side, side, 3]`, coarse and each of its own colours."""
    coarse = np.random.default_rng(3).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    scale = side // 4
    return torch.from_numpy(coarse.repeat(scale, axis=1).repeat(scale, axis=2))


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy of the small model without a checker."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def theirs(folder: Path, pictures: Tensor) -> list[bool]:
    """What diffusers' pipeline flags, which has pictures as its decoder gives them."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    images = pictures.permute(0, 3, 1, 2) / 127.5 - 1
    _, flagged = pipeline.run_safety_checker(images, CPU, torch.float32)
    return list(flagged)


def ours(folder: Path, pictures: Tensor) -> list[bool]:
    return list(SafetyChecker.load(folder, CPU).flags(pictures).tolist())


@pytest.mark.parametrize("side", [32, 20, 128])
@pytest.mark.parametrize(("fewest", "most"), [(2, 7), (9, 14), (17, 22)])
def test_the_pictures_that_diffusers_flags_are_flagged_and_no_others(
    folder: Path, side: int, fewest: int, most: int
) -> None:
    pictures = some_pictures(24, side)
    near = cosines(add_checker(folder), list(pictures.numpy()))
    threshold = between(near, fewest, most)
    add_checker(folder, threshold)
    assert ours(folder, pictures) == theirs(folder, pictures) == list(near > threshold)


@pytest.mark.parametrize(("threshold", "expected"), [(ALL, True), (NONE, False)])
def test_a_checker_flags_everything_or_nothing_if_its_thresholds_say_so(
    folder: Path, threshold: float, expected: bool
) -> None:
    pictures = some_pictures(8)
    add_checker(folder, threshold)
    assert ours(folder, pictures) == theirs(folder, pictures) == [expected] * 8


def test_what_asks_for_special_care_makes_thresholds_stricter_as_in_diffusers(
    folder: Path,
) -> None:
    pictures = some_pictures(24)
    near = cosines(add_checker(folder), list(pictures.numpy()))
    # Just above all of them, by less than what special care adds.
    threshold = float(near.max()) + 0.004
    few = ours(add_checker(folder, threshold), pictures)
    more = ours(add_checker(folder, threshold, special=ALL), pictures)
    assert not any(few) and any(more)
    assert more == theirs(folder, pictures)


def test_weights_with_the_names_of_the_published_checkers_are_loaded(folder: Path) -> None:
    pictures = some_pictures(24)
    near = cosines(add_checker(folder), list(pictures.numpy()))
    add_checker(folder, between(near, 9, 14))
    before = ours(folder, pictures)
    nested = {
        f"vision_model.{name}" if name.startswith("vision_model.") else name: weight
        for name, weight in load_file(folder / WEIGHTS).items()
    }
    nested["vision_model.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(nested, folder / WEIGHTS, metadata={"format": "pt"})
    assert ours(folder, pictures) == before


def test_a_picture_is_flagged_or_not_whatever_it_is_checked_with(folder: Path) -> None:
    pictures = some_pictures(24)
    near = cosines(add_checker(folder), list(pictures.numpy()))
    checker = SafetyChecker.load(add_checker(folder, between(near, 9, 14)), CPU)
    whole = checker.flags(pictures)
    assert torch.equal(whole, torch.cat([checker.flags(part) for part in pictures.split(8)]))


def drop(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["visual_projection.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def crop_larger(folder: Path) -> None:
    file = folder / "feature_extractor" / "preprocessor_config.json"
    config = json.loads(file.read_text()) | {"crop_size": {"height": 20, "width": 20}}
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drop, "the weights of the safety_checker have no visual_projection.weight"),
        (crop_larger, "does not prepare pictures for its safety_checker"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"x" * 99), "safety_checker cannot be"),
        (lambda folder: shutil.rmtree(folder / "feature_extractor"), "safety_checker cannot be"),
    ],
)
def test_a_checker_that_is_not_what_it_says_is_refused_and_never_filled_with_noise(
    folder: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(add_checker(folder))
    with pytest.raises(UserError) as caught:
        SafetyChecker.load(folder, CPU)
    assert words in caught.value.message
    assert caught.value.field == "spec.model" and caught.value.remedy


def test_plain_diffusers_checks_with_the_tuned_model_as_with_the_base_model(
    tmp_path: Path, folder: Path
) -> None:
    add_checker(folder, ALL)
    # As it was called when the first models were published.
    change_index(folder, feature_extractor=["transformers", "CLIPFeatureExtractor"])
    tuned = tmp_path / "tuned"
    StableDiffusion.load(folder).save(tuned, lora=False)
    keep_checker(folder, tuned)
    pipeline = StableDiffusionPipeline.from_pretrained(tuned)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a dog", num_inference_steps=1, output_type="np")
    assert drawn.nsfw_content_detected == [True] and not drawn.images.any()
    assert pipeline.config.requires_safety_checker
    # No second copy on the disk.
    assert (tuned / WEIGHTS).samefile(folder / WEIGHTS)
