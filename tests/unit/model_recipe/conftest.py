"""A data set of a few robots, which is quickly drawn."""

from pathlib import Path

import pytest

from tools.model.dataset import Dataset, build
from tools.model.robots import draw_robots
from tools.model.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def robots() -> Dataset:
    return build(draw_robots(6))


@pytest.fixture(scope="session")
def robot_folder(robots: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set as `python -m tools.model pictures` leaves it."""
    folder = tmp_path_factory.mktemp("recipe") / "data"
    robots.write(folder)
    train_tokenizer(robots.records, folder / "tokenizer")
    return folder
