"""What tests of the recipe are made of."""

from dataclasses import replace
from typing import Any

import torch

from tools.model import drawings
from tools.model.colours import NO_COLOUR, TURNS, WORDS
from tools.model.composition import Composer
from tools.model.dataset import Dataset
from tools.model.records import Record
from tools.model.samples import VARIANTS, make_samples
from tools.model.scenes import scene_bank

CPU = torch.device("cpu")

_PLAIN = Record(
    style=drawings.NOTO,
    names=("robot",),
    nouns=(),
    tags=(),
    weight=1.0,
    colours=(NO_COLOUR,) * TURNS,
    recolour=True,
)


def a_record(**fields: Any) -> Record:
    """A robot without colour, but for these fields."""
    return replace(_PLAIN, **fields)


def coloured(*words: str) -> tuple[int, ...]:
    """Dominant colours: these for the first turns, none for the others."""
    known = [WORDS.index(word) for word in words]
    return (*known, *[NO_COLOUR] * (TURNS - len(known)))


def a_composer(dataset: Dataset, count: int = 8) -> Composer:
    """Samples of the data set, ready to be composed."""
    columns, _ = make_samples(dataset.records, count, seed=0)
    return Composer.on(CPU, dataset.pixels(), scene_bank(VARIANTS), columns)
