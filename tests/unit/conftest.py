"""Fixtures that several unit tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 32 px pipeline that predicts noise."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_velocity_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 32 px pipeline that predicts velocity."""
    folder = tmp_path_factory.mktemp("tiny") / "velocity"
    return make_tiny_model(folder, prediction_type="v_prediction")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A small Ray on this machine."""
    from dreambooth.pipeline.ray_session import ray_session

    with ray_session():
        yield
