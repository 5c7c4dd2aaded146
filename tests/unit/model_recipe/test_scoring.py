"""The score: what is alike counts as recognised, and only that."""

import builtins
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.unit.model_recipe.builders import a_record
from tools.model.dataset import Dataset
from tools.model.errors import RecipeError
from tools.model.sampling import PROMPTS, write_grid
from tools.model.scoring import (
    Likeness,
    References,
    Score,
    choose_references,
    load_encoder,
    on_white,
)

AXES = torch.eye(3)
REFERENCES = References(AXES[[0, 0, 1, 2]], [("dog",), ("dog", "toy"), ("cat",), ("car",)])


def test_a_picture_that_is_nearest_to_its_noun_is_recognised() -> None:
    right, likeness = REFERENCES.likeness(AXES[[0, 1, 2]], ["dog", "cat", "toy"])
    assert right == [True, True, False]
    assert likeness == Likeness(recognised=0.6667, nearness=0.6667)


def test_real_pictures_are_compared_with_all_but_themselves() -> None:
    own = REFERENCES.own_likeness(["dog", "dog", "cat", "car"])
    assert own.recognised == 0.5  # the only cat and the only car have no like


def test_references_are_spread_over_all_pictures_of_a_noun() -> None:
    records = [a_record(nouns=("dog",) if index % 2 else ()) for index in range(400)]
    chosen = choose_references(records)
    assert len(chosen) == 32
    assert chosen[0] == 1 and chosen[-1] == 399
    assert all(index % 2 for index in chosen)


def test_a_picture_of_two_nouns_is_chosen_once() -> None:
    assert choose_references([a_record(nouns=("zombie", "person"))]) == [0]


def test_references_are_opaque(robots: Dataset) -> None:
    image = on_white(robots.pictures[0])
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_without_the_encoder_the_score_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = builtins.__import__

    def without(name: str, *others: Any) -> Any:
        if name.startswith("efficientnet"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return whole(name, *others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RecipeError, match=r"No score: No module named 'efficientnet.*make setup"):
        load_encoder()


def test_a_score_is_kept_with_its_encoder(tmp_path: Path) -> None:
    same = Likeness(0.5, 0.25)
    Score("colours", 4, same, same, {"dog": 0.5}, 30.0).write(tmp_path / "out" / "score.json")
    kept = json.loads((tmp_path / "out" / "score.json").read_text())
    assert kept["encoder"] == "colours"
    assert kept["drawn"] == {"recognised": 0.5, "nearness": 0.25}


def test_the_grid_has_eight_pictures_in_a_row(tmp_path: Path) -> None:
    pictures: Sequence[Image.Image] = [
        Image.new("RGB", (16, 16), (7 * number, 0, 0)) for number in range(len(PROMPTS))
    ]
    write_grid(pictures, tmp_path / "out" / "grid.webp")
    with Image.open(tmp_path / "out" / "grid.webp") as grid:
        assert grid.size == (128, 64)


def test_embeddings_of_the_offline_encoder_are_unit_vectors(robots: Dataset) -> None:
    embeddings: Tensor = load_encoder().embed(
        [on_white(picture) for picture in robots.pictures[:2]]
    )
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(2), atol=1e-5)
