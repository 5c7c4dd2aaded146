"""Chance decides how a picture is shown."""

import random
from collections.abc import Iterator

import numpy as np
import pytest

from tests.unit.model_recipe.builders import a_record, coloured
from tools.model import samples
from tools.model.dataset import Dataset
from tools.model.records import Record
from tools.model.samples import CAPTIONS, VARIANTS, Ground, Sample, make_sample, make_samples
from tools.model.scenes import SCENES


def many(record: Record, count: int = 2000) -> Iterator[Sample]:
    rng = random.Random(0)
    return (make_sample(0, record, rng) for _ in range(count))


def test_the_same_seed_makes_the_same_samples_however_they_are_spread(
    robots: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, captions = make_samples(robots.records, 10, seed=3)
    monkeypatch.setattr(samples, "spread", lambda function, pieces: list(map(function, pieces)))
    again, captions_again = make_samples(robots.records, 10, seed=3)
    others, _ = make_samples(robots.records, 10, seed=4)
    assert captions == captions_again
    assert all(np.array_equal(columns[name], again[name]) for name in columns)
    assert not np.array_equal(columns["scale"], others["scale"])


def test_each_sample_has_a_row_in_every_column(robots: Dataset) -> None:
    columns, captions = make_samples(robots.records, 5000, seed=0)
    assert {len(column) for column in columns.values()} == {5000}
    assert {len(texts) for texts in captions} == {CAPTIONS}
    assert set(columns["picture"]) == set(range(len(robots.records)))


def test_heavier_pictures_are_drawn_more_often() -> None:
    records = [a_record(weight=1.0), a_record(weight=3.0)]
    columns, _ = make_samples(records, 4000, seed=0)
    assert columns["picture"].astype(float).mean() == pytest.approx(0.75, abs=0.03)


def test_hue_is_turned_only_to_colours_that_have_a_name() -> None:
    turns = {sample.turn for sample in many(a_record(colours=coloured("gray", "green", "black")))}
    assert turns == {0, 1}  # black is no hue


def test_what_its_colour_makes_is_not_recoloured() -> None:
    record = a_record(colours=coloured("yellow", "green"), recolour=False)
    assert {sample.turn for sample in many(record)} == {0}


def test_drawings_stay_inside_the_picture() -> None:
    for sample in many(a_record()):
        room = max(0.0, 1 - sample.scale)
        assert all(abs(shift) <= room + 1e-9 for shift in sample.shift)


def test_captions_name_the_scene_that_is_shown() -> None:
    shown = [sample for sample in many(a_record()) if sample.ground is Ground.SCENE]
    assert len(shown) > 300
    for sample in shown:
        phrases = SCENES[sample.scene // VARIANTS].phrases
        assert all(any(phrase in text for phrase in phrases) for text in sample.captions)
        assert sample.scale <= 0.84
