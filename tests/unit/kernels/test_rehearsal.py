"""Kernels are compiled for shapes before there is anything to compute."""

from pathlib import Path

import pytest
import torch

from dreambooth.kernels import rehearsal
from dreambooth.kernels.availability import check_available
from dreambooth.kernels.device import geglu as device
from dreambooth.kernels.geglu import geglu
from dreambooth.kernels.rehearsal import SHAPES, is_rehearsing, rehearse
from tests.compiling import kernels_asked_for, pretend_an_h100


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled kernels go."""
    pretend_an_h100(monkeypatch, tmp_path / "cache")
    for kernel in (device._forward, device._backward):
        # What another test has compiled.
        kernel.jitted.device_caches.clear()
    return tmp_path / "cache"


def gate() -> None:
    """A forward and a backward pass of one operation."""
    x = torch.empty((32, 512), device=SHAPES, dtype=torch.bfloat16, requires_grad=True)
    geglu(x).sum().backward()
    assert x.grad is not None


def test_what_a_rehearsal_would_launch_is_compiled(cache: Path) -> None:
    rehearse("gate", gate)
    compiled = {file.stem for file in cache.rglob("*.cubin")}
    assert compiled and compiled <= {"_forward", "_backward"}
    assert not is_rehearsing()


def test_every_kernel_of_both_passes_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = kernels_asked_for(monkeypatch, tmp_path)
    rehearse("gate", gate)
    assert asked == {"_forward", "_backward"}


def test_what_was_rehearsed_is_not_rehearsed_again(cache: Path) -> None:
    called = []
    for what in ("gate", "gate", "another"):
        rehearse(what, lambda what=what: called.append(what))  # type: ignore[misc]
    assert called == ["gate", "another"]
    for file in cache.iterdir():
        file.unlink()
    rehearse("gate", lambda: called.append("after the cache was emptied"))
    assert called[-1] == "after the cache was emptied"


def test_a_rehearsal_that_fails_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble() -> None:
        raise RuntimeError("no such shape")

    logged: list[str] = []
    monkeypatch.setattr(rehearsal._log, "warning", lambda *parts: logged.append(str(parts[-1])))
    rehearse("gate", stumble)
    assert logged == ["no such shape"] and not is_rehearsing()
    called = []
    rehearse("gate", lambda: called.append(True))
    assert called


def test_shapes_have_no_kernels_outside_of_a_rehearsal() -> None:
    assert check_available(SHAPES) == "no GPU"
    gate()
