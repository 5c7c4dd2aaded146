"""Fixtures that several unit tests share."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fake_hub import FakeHub, fake_hub
from tests.measuring import measure_no_other
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

    with pytest.MonkeyPatch.context() as patch:
        measure_no_other(patch)
        with ray_session():
            yield


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on this machine that HF_ENDPOINT names; no token is set, and no retry waits."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    impatient = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr(file_download, "time", impatient)
    monkeypatch.setattr(_http, "time", impatient)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with fake_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub
