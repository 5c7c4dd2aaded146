"""Turning hues, and naming the colours that come out."""

import numpy as np
import pytest
from PIL import Image

from tools.model.colours import (
    NO_COLOUR,
    TURNS,
    VALUES,
    WORDS,
    dominant_colours,
    name_pixels,
    turn_matrices,
)


def square(*colours: str) -> Image.Image:
    """Stripes of these colours."""
    image = Image.new("RGBA", (32, 32))
    width = 32 // len(colours)
    for place, colour in enumerate(colours):
        image.paste(VALUES[colour], (place * width, 0, (place + 1) * width, 32))
    return image


@pytest.mark.parametrize("word", WORDS)
def test_a_colour_is_called_by_its_name(word: str) -> None:
    pixel = np.array([VALUES[word]], np.float32)
    assert WORDS[int(name_pixels(pixel)[0])] == word


def test_turning_keeps_luminance_and_gray() -> None:
    luminance = np.array([0.299, 0.587, 0.114])
    for matrix in turn_matrices():
        assert np.allclose(luminance @ matrix, luminance, atol=1e-2)
        assert np.allclose(matrix @ [1, 1, 1], [1, 1, 1], atol=1e-2)


def test_no_turn_changes_nothing_and_two_add_up() -> None:
    matrices = turn_matrices()
    assert np.allclose(matrices[0], np.eye(3), atol=1e-5)
    assert np.allclose(matrices[1] @ matrices[2], matrices[3], atol=1e-4)


def test_a_turned_thing_is_called_by_its_new_colour() -> None:
    names = [
        WORDS[index] if index != NO_COLOUR else "" for index in dominant_colours(square("red"))
    ]
    assert names[0] == "red"
    assert "green" in names and "blue" in names


def test_a_thing_of_many_colours_has_none() -> None:
    assert dominant_colours(square("red", "green", "blue", "yellow"))[0] == NO_COLOUR


def test_outlines_count_less_than_what_they_surround() -> None:
    assert dominant_colours(square("black", "red"))[0] == WORDS.index("red")


def test_an_empty_picture_has_no_colour() -> None:
    assert dominant_colours(Image.new("RGBA", (32, 32))) == (NO_COLOUR,) * TURNS
