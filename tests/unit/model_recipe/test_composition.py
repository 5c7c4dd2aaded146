"""Samples become pixels."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.model_recipe.builders import CPU, a_composer
from tools.model.colours import dominant_colours
from tools.model.composition import Composer
from tools.model.dataset import Dataset
from tools.model.picture import SIZE
from tools.model.samples import Ground

RED = np.array([220, 40, 40, 255], np.uint8)


def composed(**fields: Any) -> torch.Tensor:
    """A drawing whose left half is red and whose right half is transparent, in 0..255."""
    drawing = np.zeros((1, 4, SIZE, SIZE), np.uint8)
    drawing[:, :, :, : SIZE // 2] = RED[None, :, None, None]
    scene = np.zeros((1, 3, SIZE, SIZE), np.uint8)
    scene[:, 2, :, : SIZE // 2] = 255  # blue on the left, black on the right
    row: dict[str, Any] = {
        **{"picture": 0, "turn": 0, "flip": 1.0, "scale": 1.0, "shift": (0.0, 0.0)},
        **{"ground": Ground.PLAIN, "first": (255.0, 255.0, 255.0), "second": (0.0, 0.0, 0.0)},
        **{"angle": 0.0, "scene": 0, "scene_flip": 1.0},
        **fields,
    }
    whole = ("picture", "turn", "ground", "scene")
    columns = {
        name: np.array([value], np.int64 if name in whole else np.float32)
        for name, value in row.items()
    }
    composer = Composer.on(CPU, drawing, scene, columns)
    return (composer.compose(torch.tensor([0]))[0] + 1) * 127.5


LEFT, RIGHT = (slice(None), 64, 20), (slice(None), 64, 108)


def at(picture: torch.Tensor, place: Any) -> list[int]:
    return [round(value) for value in picture[place].tolist()]


def test_what_is_transparent_shows_the_background() -> None:
    picture = composed()
    assert at(picture, LEFT) == [220, 40, 40]
    assert at(picture, RIGHT) == [255, 255, 255]


def test_a_flip_mirrors_the_drawing_alone() -> None:
    picture = composed(flip=-1.0, ground=Ground.SCENE)
    assert at(picture, RIGHT) == [220, 40, 40]
    assert at(picture, LEFT) == [0, 0, 255]


def test_a_scene_can_be_mirrored() -> None:
    assert at(composed(ground=Ground.SCENE, scene_flip=-1.0), RIGHT) == [0, 0, 255]


def test_scale_and_shift_place_the_drawing() -> None:
    picture = composed(scale=0.5, shift=(0.5, 0.5))
    red = (picture[1] < 60).nonzero()
    assert red.amin(0).tolist() == pytest.approx([64, 64], abs=1)
    assert red.amax(0).tolist() == pytest.approx([127, 95], abs=1)


def test_a_gradient_goes_from_the_first_colour_to_the_second() -> None:
    picture = composed(
        ground=Ground.GRADIENT, angle=np.pi, first=(0.0, 0.0, 255.0), second=(255.0, 0.0, 0.0)
    )
    assert picture[2, 64, 127] > 250 and picture[0, 64, 127] < 5
    assert picture[0, 64, 70] > picture[0, 64, 120]


def test_a_turn_changes_the_hue() -> None:
    from PIL import Image

    picture = composed(turn=3)[:, :, : SIZE // 2].round().byte().permute(1, 2, 0).numpy()
    before, after = (dominant_colours(Image.fromarray(p)) for p in (_red(), picture))
    assert after[0] == before[3] != before[0]


def _red() -> Any:
    return np.broadcast_to(RED[:3], (SIZE, SIZE // 2, 3)).copy()


def test_all_values_are_between_minus_one_and_one(robots: Dataset) -> None:
    pictures = a_composer(robots).compose(torch.arange(8))
    assert pictures.shape == (8, 3, SIZE, SIZE)
    assert pictures.amin() >= -1 and pictures.amax() <= 1
    assert torch.isfinite(pictures).all()
