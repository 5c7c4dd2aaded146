"""Tests that need a GPU; not part of `make test`. `make test-gpu` runs them."""

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, and skip it where torch sees no GPU."""
    skip = pytest.mark.skip(reason="torch.cuda.is_available() is false: there is no GPU")
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("gpu")
            if not torch.cuda.is_available():
                item.add_marker(skip)
