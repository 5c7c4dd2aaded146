"""Captions name what a sample shows, and nothing else."""

import random
import re
from collections.abc import Iterator

import pytest

from tests.unit.model_recipe.builders import a_record, coloured
from tools.model import drawings
from tools.model.captions import any_place, caption, on_colour, on_gradient
from tools.model.dataset import Dataset
from tools.model.records import Record
from tools.model.tokenizer import IDENTIFIERS

STYLES = (
    *(drawings.SOFT, drawings.NOTO, drawings.FLAT, drawings.GLOSSY, drawings.FIREFOX),
    *(drawings.GAME, drawings.DRAWN),
)


def many(record: Record, turn: int = 0, place: str = "", count: int = 300) -> Iterator[str]:
    rng = random.Random(0)
    return (caption(record, turn, place, rng) for _ in range(count))


@pytest.mark.parametrize("style", STYLES)
def test_a_caption_names_the_thing_and_then_the_place(style: str) -> None:
    record = a_record(style=style, tags=("metal",))
    for text in many(record, place="in the snow"):
        assert re.search(r"robot\b.* in the snow(, metal)?$", text), text
        assert text == text.lower()


@pytest.mark.parametrize(
    ("name", "article"), [("robot", "a"), ("elephant", "an"), ("owl", "an"), ("tree", "a")]
)
def test_articles_fit_their_word(name: str, article: str) -> None:
    for text in many(a_record(names=(name,))):
        for found in re.findall(rf"\b(an?) {name}\b", text):
            assert found == article, text
        assert "a image" not in text and "a icon" not in text


def test_a_turned_hue_is_nearly_always_named() -> None:
    record = a_record(colours=coloured("gray", "green"))
    turned = sum("green robot" in text for text in many(record, turn=1))
    plain = sum("gray robot" in text for text in many(record, turn=0))
    assert turned > 0.85 * 300
    assert plain < 0.45 * 300


def test_a_colour_is_not_said_twice() -> None:
    record = a_record(names=("green robot",), colours=coloured("gray", "green"))
    assert not any("green green" in text for text in many(record, turn=1))


def test_no_colour_is_named_where_none_is_dominant() -> None:
    words = " ".join(many(a_record(style=drawings.NOTO)))
    assert not re.search(r"\b(red|green|blue|gray)\b", words)


def test_a_noun_is_used_about_as_often_as_the_name() -> None:
    record = a_record(names=("racing machine",), nouns=("car",))
    share = sum("car" in text for text in many(record, count=1000)) / 1000
    assert 0.5 < share < 0.75


def test_no_caption_has_an_identifier(robots: Dataset) -> None:
    rng = random.Random(0)
    for record in robots.records:
        for _ in range(200):
            text = caption(record, 0, any_place(rng), rng)
            assert not set(re.findall(r"[a-z]+", text)) & set(IDENTIFIERS), text


def test_backgrounds_are_named_by_their_colours() -> None:
    rng = random.Random(0)
    assert all("teal" in on_colour("teal", rng) for _ in range(20))
    assert {on_gradient("red", "pink", rng) for _ in range(50)} == {
        "on a red and pink gradient",
        "on a red to pink gradient background",
        "on a gradient background",
    }
