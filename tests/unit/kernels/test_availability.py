"""Why the kernels don't run, in words."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dreambooth.kernels import availability
from dreambooth.kernels.availability import check_available


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An A100, as torch would describe it, with all that Triton needs beside it."""
    availability._reason.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(availability, "_can_compile", lambda: True)
    yield
    availability._reason.cache_clear()


def test_there_is_no_reason_on_a_gpu_of_the_right_kind() -> None:
    assert check_available("cuda") is None


def test_a_gpu_without_bf16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert check_available("cuda") == "the GPU's compute capability is 7.5, below 8.0"


def test_no_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check_available("cuda") == "torch sees no CUDA device"


def test_other_devices_are_named() -> None:
    assert check_available("mps") == "there are no kernels for mps devices"


def test_triton_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert check_available("cuda") == "Triton is not installed"


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = check_available("cuda")
    assert reason is not None
    assert "C compiler" in reason
