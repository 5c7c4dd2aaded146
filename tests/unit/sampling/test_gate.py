"""The quality gate."""

import json

import numpy as np
from numpy.typing import NDArray

from dreambooth.sampling.gate import Look, Verdict, judge, look_at


def noise(seed: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return coarse.repeat(16, axis=0).repeat(16, axis=1)


def test_a_black_picture_is_refused() -> None:
    assert judge(look_at(np.zeros((64, 64, 3), np.uint8)), []) is Verdict.BLACK


def test_a_flat_picture_is_refused() -> None:
    assert judge(look_at(np.full((64, 64, 3), 130, np.uint8)), []) is Verdict.FLAT


def test_the_same_picture_again_is_refused_even_with_a_little_noise_on_it() -> None:
    first = noise(0)
    again = np.clip(first.astype(int) + np.arange(128)[:, None, None] % 2, 0, 255)
    assert judge(look_at(again.astype(np.uint8)), [look_at(first)]) is Verdict.DUPLICATE


def test_a_different_picture_is_accepted() -> None:
    assert judge(look_at(noise(1)), [look_at(noise(0))]) is Verdict.ACCEPTED


def test_a_look_travels_without_loss() -> None:
    look = look_at(noise(3))
    again = Look.from_json(json.loads(json.dumps(look.to_json())))
    assert np.array_equal(again.thumbnail, look.thumbnail)
    assert again.thumbnail.dtype == look.thumbnail.dtype
    assert (again.brightest, again.deviation) == (look.brightest, look.deviation)
