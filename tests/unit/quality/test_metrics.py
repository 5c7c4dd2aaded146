"""The figures against values computed by hand, and the sentence people read."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from dreambooth.quality.metrics import (
    Quality,
    class_similarity,
    diversity,
    gap_closed,
    measure_quality,
    mutual_similarity,
    photo_ceiling,
    prior_drift,
    prompt_fidelity,
    subject_fidelity,
)

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]
NORTH_EAST = [math.sqrt(0.5), math.sqrt(0.5)]

GOOD = Quality(
    encoder="efficientnet-lite0",
    photos=5,
    pictures=8,
    subject_fidelity=0.80,
    base_fidelity=0.56,
    photo_ceiling=0.8677,
    gap_closed=0.78,
    class_similarity=0.57,
    base_class_similarity=0.56,
    prior_drift=0.03,
    class_diversity=0.40,
    base_class_diversity=0.41,
    diversity=0.976,
    prompt_fidelity=None,
    base_prompt_fidelity=None,
)


class ColourEncoder:
    """Embeds a picture as the direction of its mean colour."""

    name = "colour"

    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        means = [image.convert("RGB").resize((1, 1)).getpixel((0, 0)) for image in images]
        return F.normalize(torch.tensor(means, dtype=torch.float32), dim=-1)


class SpokenColourEncoder(ColourEncoder):
    """Knows the words red and green too."""

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        return torch.tensor([[float("red" in p), float("green" in p), 0.0] for p in prompts])


def plain(*colours: str) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), colour) for colour in colours]


def vectors(least: int = 1) -> st.SearchStrategy[Tensor]:
    """`[least..6, 3]` unit vectors."""
    numbers = st.floats(-1, 1, width=32).filter(lambda x: abs(x) > 1e-3)
    rows = st.lists(st.tuples(numbers, numbers, numbers), min_size=least, max_size=6)
    return rows.map(lambda values: F.normalize(torch.tensor(values, dtype=torch.float64), dim=-1))


def test_subject_fidelity_is_the_mean_over_all_pairs() -> None:
    images, photos = torch.tensor([EAST, NORTH]), torch.tensor([EAST, NORTH_EAST])
    # (1 + √½ + 0 + √½) / 4
    assert subject_fidelity(images, photos) == pytest.approx((1 + math.sqrt(2)) / 4)


def test_mutual_similarity_leaves_out_each_picture_with_itself() -> None:
    assert mutual_similarity(torch.tensor([EAST, NORTH])) == pytest.approx(0.0)
    three = torch.tensor([EAST, EAST, NORTH_EAST])
    assert photo_ceiling(three) == pytest.approx((1 + 2 * math.sqrt(0.5)) / 3)
    assert diversity(three) == pytest.approx(1 - (1 + 2 * math.sqrt(0.5)) / 3)


def test_one_photo_has_no_ceiling_and_no_diversity() -> None:
    assert math.isnan(photo_ceiling(torch.tensor([EAST])))
    assert math.isnan(diversity(torch.tensor([EAST])))


def test_gap_closed_is_zero_at_the_floor_and_one_at_the_ceiling() -> None:
    assert gap_closed(0.5, 0.5, 0.9) == 0.0
    assert gap_closed(0.9, 0.5, 0.9) == 1.0
    assert gap_closed(0.8, 0.5, 0.9) == pytest.approx(0.75)
    assert gap_closed(0.4, 0.5, 0.9) == pytest.approx(-0.25)


@pytest.mark.parametrize("ceiling", [0.5, 0.505, 0.3, math.nan])
def test_a_gap_that_is_not_there_gives_no_share(ceiling: float) -> None:
    assert math.isnan(gap_closed(0.6, 0.5, ceiling))


def test_prior_drift_is_movement_towards_the_photos_in_shares_of_the_gap() -> None:
    photos = torch.tensor([EAST])
    before, after = torch.tensor([NORTH]), torch.tensor([NORTH, NORTH_EAST])
    moved = math.sqrt(0.5) / 2
    assert prior_drift(before, after, photos, 0.5, 0.9) == pytest.approx(moved / 0.4)
    assert prior_drift(after, before, photos, 0.5, 0.9) == pytest.approx(-moved / 0.4)
    assert class_similarity(after, photos) == pytest.approx(moved)


def test_prompt_fidelity_compares_each_picture_with_its_own_prompt() -> None:
    images = torch.tensor([EAST, NORTH])
    assert prompt_fidelity(images, torch.tensor([EAST, NORTH_EAST])) == pytest.approx(
        (1 + math.sqrt(0.5)) / 2
    )
    with pytest.raises(ValueError, match="2 pictures need as many prompts, not 1"):
        prompt_fidelity(images, torch.tensor([EAST]))


@given(vectors(), vectors())
def test_fidelity_is_a_cosine_and_symmetric(images: Tensor, photos: Tensor) -> None:
    value = subject_fidelity(images, photos)
    assert -1 - 1e-9 <= value <= 1 + 1e-9
    assert value == pytest.approx(subject_fidelity(photos, images), abs=1e-9)


@given(vectors(least=2), st.randoms(use_true_random=False))
def test_figures_do_not_depend_on_the_order_of_pictures(images: Tensor, random: object) -> None:
    order = list(range(len(images)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = images[order]
    photos = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    assert diversity(shuffled) == pytest.approx(diversity(images), abs=1e-9)
    assert subject_fidelity(shuffled, photos) == pytest.approx(
        subject_fidelity(images, photos), abs=1e-9
    )


@given(vectors(least=2))
def test_diversity_is_between_none_and_opposite(images: Tensor) -> None:
    assert -1e-9 <= diversity(images) <= 2 + 1e-9


@given(vectors())
def test_copies_of_one_picture_have_no_diversity(images: Tensor) -> None:
    assert diversity(images[:1].repeat(4, 1)) == pytest.approx(0.0, abs=1e-9)


def test_measuring_puts_floor_ceiling_and_class_side_by_side() -> None:
    quality = measure_quality(
        ColourEncoder(),
        photos=plain("#ff0000", "#ff2000"),
        tuned=plain("#ff1000", "#ff1000"),
        base=plain("#00ff00", "#00ff00"),
        prompts=["a red robot", "a red robot"],
        tuned_class=plain("#00ff00", "#0000ff"),
        base_class=plain("#00ff00", "#0000ff"),
    )
    assert quality.encoder == "colour"
    assert (quality.photos, quality.pictures) == (2, 2)
    assert quality.base_fidelity < quality.subject_fidelity
    assert quality.photo_ceiling == pytest.approx(math.cos(math.atan(0x20 / 0xFF)), abs=1e-5)
    assert quality.gap_closed is not None and quality.gap_closed > 0.9
    assert quality.prior_drift == pytest.approx(0.0, abs=1e-6)
    assert quality.diversity == pytest.approx(1.0, abs=1e-6)
    assert quality.class_similarity == pytest.approx(quality.base_class_similarity, abs=1e-6)


def test_prompts_are_measured_where_the_encoder_understands_text() -> None:
    pictures = {
        "photos": plain("red", "#ff2000"),
        "tuned": plain("red", "lime"),
        "base": plain("lime", "lime"),
        "tuned_class": plain("lime", "blue"),
        "base_class": plain("lime", "blue"),
    }
    prompts = ["a red robot", "a green robot"]
    spoken = measure_quality(SpokenColourEncoder(), prompts=prompts, **pictures)
    assert spoken.prompt_fidelity == pytest.approx(1.0)
    assert spoken.base_prompt_fidelity == pytest.approx(0.5)
    silent = measure_quality(ColourEncoder(), prompts=prompts, **pictures)
    assert silent.prompt_fidelity is None
    assert any("does not understand text" in note for note in silent.notes)


def test_a_single_photo_and_a_single_class_picture_give_valid_json_and_reasons() -> None:
    quality = measure_quality(
        ColourEncoder(),
        photos=plain("red"),
        tuned=plain("#ff1000"),
        base=plain("lime"),
        prompts=["a robot"],
        tuned_class=plain("blue"),
        base_class=plain("blue"),
    )
    document = json.loads(json.dumps(quality.to_json(), allow_nan=False))
    assert document["subjectFidelity"] > document["baseFidelity"]
    assert {"photoCeiling", "gapClosed", "priorDrift", "diversity", "classDiversity"}.isdisjoint(
        document
    )
    assert any("One photo" in note for note in document["notes"])
    assert any("One class picture" in note for note in document["notes"])
    assert "more like your photo than a generic robot" in quality.sentence("robot")
    assert "no ceiling, with one photo" in quality.sentence("robot")


def test_a_base_model_that_already_knows_the_subject_gets_no_share_of_a_gap() -> None:
    quality = measure_quality(
        ColourEncoder(),
        photos=plain("red", "red"),
        tuned=plain("red", "red"),
        base=plain("red", "red"),
        prompts=["a robot", "a robot"],
        tuned_class=plain("blue", "lime"),
        base_class=plain("blue", "lime"),
    )
    assert quality.gap_closed is None
    assert any("noise" in note for note in quality.notes)


def test_a_good_result_is_one_sentence_with_its_encoder_floor_and_ceiling() -> None:
    assert GOOD.sentence("robot") == (
        "The pictures look 78 % of the way from a generic robot to your photos "
        "(efficientnet-lite0 0.80; base 0.56, photos among themselves 0.87); "
        "any other robot stays itself."
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gap_closed": 0.12}, "only 12 % of the way"),
        ({"gap_closed": -0.1}, "less like your photos than a generic robot does"),
        ({"gap_closed": 1.3}, "can mean copying"),
        ({"prior_drift": 0.4}, "any other robot has moved 40 % of the way there too."),
        ({"diversity": 0.7}, "any other robot is 30 % less varied than before."),
        (
            {"prior_drift": 0.4, "diversity": 0.7},
            "has moved 40 % of the way there too and is 30 % less varied than before.",
        ),
    ],
)
def test_bad_news_is_in_the_sentence(changed: dict[str, float], said: str) -> None:
    assert said in replace(GOOD, **changed).sentence("robot")  # type: ignore[arg-type]


def test_json_has_the_names_of_the_status_and_no_empty_figures() -> None:
    document = GOOD.to_json()
    assert document["subjectFidelity"] == 0.8
    assert document["photoCeiling"] == 0.8677
    assert document["encoder"] == "efficientnet-lite0"
    assert "promptFidelity" not in document
    assert None not in document.values()
