"""Drawings become one file of pictures and records."""

from pathlib import Path

import numpy as np
import pytest

from tools.model.dataset import FILE, Dataset, build
from tools.model.drawings import Drawing
from tools.model.errors import RecipeError
from tools.model.names import Emoji, Group
from tools.model.picture import SIZE
from tools.model.robots import draw_robots


def test_every_drawing_is_one_picture_with_its_record(robots: Dataset) -> None:
    assert robots.counts() == {"draw": 6}
    assert len(robots.pictures) == 6
    assert {record.nouns[0] for record in robots.records} == {"robot"}
    assert robots.pixels().shape == (6, 4, SIZE, SIZE)


def test_robots_are_all_different(robots: Dataset) -> None:
    assert len(set(robots.pictures)) == 6


def test_what_is_written_is_read_back(robots: Dataset, tmp_path: Path) -> None:
    robots.write(tmp_path)
    assert Dataset.read(tmp_path).digest() == robots.digest()


def test_the_same_drawings_are_the_same_file(robots: Dataset, tmp_path: Path) -> None:
    robots.write(tmp_path / "one")
    build(draw_robots(6)).write(tmp_path / "two")
    assert (tmp_path / "one" / FILE).read_bytes() == (tmp_path / "two" / FILE).read_bytes()


def test_nearly_empty_pictures_and_signs_are_left_out() -> None:
    dot = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128"><circle r="9"/></svg>'
    disc = dot.replace(b'r="9"', b'r="90"')
    sign = Emoji("left arrow", group=Group.SYMBOL)
    built = build(
        [
            Drawing("noto", "dot", Emoji("dot"), dot),
            Drawing("noto", "sign", sign, disc),
            Drawing("noto", "disc", Emoji("disc"), disc),
        ]
    )
    assert [record.names for record in built.records] == [("disc",)]


def test_transparent_edges_keep_their_colour(robots: Dataset) -> None:
    # Premultiplied scaling: no dark fringe where a white drawing ends.
    white = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200" width="200" '
    white += b'height="200"><circle cx="100" cy="100" r="70" fill="#fff"/></svg>'
    (picture,) = build([Drawing("noto", "disc", Emoji("disc"), white)]).pixels()
    edge = (picture[3] > 100) & (picture[3] < 200)
    assert edge.any()
    assert np.all(picture[:3, edge] > 240)


def test_a_missing_data_set_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"tools\.model pictures"):
        Dataset.read(tmp_path)
