"""Pictures on the disk."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dreambooth.sampling.files import read_metadata, read_picture, write_png

METADATA = {"prompt": "a sks dog – « très » 犬", "seed": 7, "guidance": 3.0, "negative": None}


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)


def test_pixels_and_provenance_come_back_as_they_were_written(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    file = tmp_path / "new" / "folder" / "a.png"
    data = write_png(file, picture, METADATA)
    assert file.read_bytes() == data
    assert np.array_equal(read_picture(file), picture)
    assert read_metadata(file) == {
        "prompt": "a sks dog – « très » 犬",
        "seed": "7",
        "guidance": "3.0",
    }


def test_the_same_picture_has_the_same_bytes_wherever_it_is_written(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    first = write_png(tmp_path / "a.png", picture, METADATA)
    assert write_png(tmp_path / "b" / "c.png", picture, METADATA) == first
    assert write_png(tmp_path / "a.png", picture, METADATA | {"seed": 8}) != first


def test_text_that_other_programs_put_into_a_picture_is_not_taken_for_provenance(
    tmp_path: Path,
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "other.jpg", comment="by hand")
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    assert read_metadata(tmp_path / "other.jpg") == {}
    assert read_metadata(tmp_path / "other.png") == {}
