"""Which picture is shown how: chance decides hue, place, background and captions.

A sample is a few numbers; the pixels are composed from them on the device (composition.py).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tools.model.captions import caption, on_colour, on_gradient
from tools.model.colours import BACKGROUNDS, HUES, TURNS, VALUES
from tools.model.records import Record
from tools.model.scenes import SCENES
from tools.model.workers import spread

CAPTIONS = 2
# Pictures of each scene.
VARIANTS = 24
# Samples are drawn in blocks, each from its own seed: the same ones on any number of cores.
_BLOCK = 4096

Colour = tuple[float, float, float]
_WHITE: Colour = (255, 255, 255)


class Ground(IntEnum):
    """What is behind the picture."""

    PLAIN = 0
    GRADIENT = 1
    SCENE = 2


@dataclass(frozen=True)
class Background:
    """What is behind a picture, and the words that say so (none: it isn't mentioned)."""

    ground: Ground = Ground.PLAIN
    first: Colour = _WHITE
    second: Colour = _WHITE
    scene: int = 0
    words: str = ""


@dataclass(frozen=True)
class Sample:
    """One composed picture.

    Attributes:
        picture: Index in the data set.
        turn: How far the hue is turned, an index in `turn_matrices`.
        flip: -1 if mirrored, else 1.
        scale: Side of the drawing relative to the picture's.
        shift: Right and down; 1 is half the picture's side.
        angle: Direction of a gradient.
        scene: Index in the bank of scenes.
        scene_flip: -1 if mirrored, else 1.
        captions: CAPTIONS ways to say what it shows.
    """

    picture: int
    turn: int
    flip: int
    scale: float
    shift: tuple[float, float]
    ground: Ground
    first: Colour
    second: Colour
    angle: float
    scene: int
    scene_flip: int
    captions: tuple[str, ...]


_TYPES: Mapping[str, type[np.generic]] = {
    **dict.fromkeys(("picture", "turn", "ground", "scene"), np.int64),
    **dict.fromkeys(("flip", "scale", "shift", "first", "second"), np.float32),
    **dict.fromkeys(("angle", "scene_flip"), np.float32),
}


def make_samples(
    records: Sequence[Record], count: int, seed: int
) -> tuple[dict[str, NDArray[np.generic]], list[tuple[str, ...]]]:
    """Columns with `count` rows, named as in Sample, and the captions of each row."""
    blocks = spread(partial(_make_block, records, seed), range(-(-count // _BLOCK)))
    rows = [sample for block in blocks for sample in block][:count]
    columns = {
        name: np.array([getattr(row, name) for row in rows], kind) for name, kind in _TYPES.items()
    }
    return columns, [row.captions for row in rows]


def _make_block(records: Sequence[Record], seed: int, number: int) -> list[Sample]:
    rng = random.Random(f"{seed}/{number}")
    weights = [record.weight for record in records]
    pictures = rng.choices(range(len(records)), weights, k=_BLOCK)
    return [make_sample(index, records[index], rng) for index in pictures]


def make_sample(index: int, record: Record, rng: random.Random) -> Sample:
    """A sample of this picture."""
    turn = _turn(record, rng)
    behind = _background(rng)
    scale, shift = _placement(behind.ground, rng)
    return Sample(
        picture=index,
        turn=turn,
        flip=rng.choice((-1, 1)),
        scale=scale,
        shift=shift,
        ground=behind.ground,
        first=behind.first,
        second=behind.second,
        angle=rng.uniform(0, 2 * np.pi),
        scene=behind.scene,
        scene_flip=rng.choice((-1, 1)),
        captions=tuple(caption(record, turn, behind.words, rng) for _ in range(CAPTIONS)),
    )


def _turn(record: Record, rng: random.Random) -> int:
    """Mostly none; never one whose colour could not be named."""
    if not record.recolour or rng.random() >= 0.22:
        return 0
    turn = rng.randrange(1, TURNS)
    return turn if 0 <= record.colours[turn] < HUES else 0


def _background(rng: random.Random) -> Background:
    choice = rng.random()
    if choice < 0.40:
        return Background(words="on a white background" if rng.random() < 0.15 else "")
    if choice < 0.47:
        name = rng.choice(("beige", "light blue", "gray", "light green", "pink", "yellow"))
        red, green, blue = ((value + 255) / 2 for value in VALUES[name])
        pale = _near((red, green, blue), rng)
        return Background(first=pale)
    if choice < 0.72:
        name = rng.choice(BACKGROUNDS)
        return Background(first=_near(VALUES[name], rng), words=on_colour(name, rng))
    if choice < 0.78:
        one, other = rng.sample(BACKGROUNDS, 2)
        colours = _near(VALUES[one], rng), _near(VALUES[other], rng)
        return Background(Ground.GRADIENT, *colours, words=on_gradient(one, other, rng))
    kind = rng.randrange(len(SCENES))
    scene = kind * VARIANTS + rng.randrange(VARIANTS)
    return Background(Ground.SCENE, scene=scene, words=rng.choice(SCENES[kind].phrases))


def _placement(ground: Ground, rng: random.Random) -> tuple[float, tuple[float, float]]:
    """Scale and shift: smaller in a scene, and nearer to its ground."""
    if ground is Ground.SCENE:
        scale = rng.uniform(0.5, 0.84)
        room = 1 - scale
        return scale, (rng.uniform(-room, room) * 0.8, room * rng.uniform(-0.1, 0.95))
    scale = rng.uniform(0.55, 0.84) if rng.random() < 0.2 else rng.uniform(0.84, 1.02)
    room = 1 - min(scale, 1)
    return scale, (rng.uniform(-room, room) * 0.8, rng.uniform(-room, room) * 0.8)


def _near(colour: Colour, rng: random.Random) -> Colour:
    red, green, blue = (min(255, max(0, value + rng.uniform(-14, 14))) for value in colour)
    return red, green, blue
