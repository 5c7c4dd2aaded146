"""Compiling kernels for a GPU that is not there."""

from pathlib import Path
from typing import Any

import pytest

from dreambooth.kernels import availability


class _Driver:
    """What Triton asks of a driver before it compiles."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def pretend_an_h100(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Lets kernels be compiled, into `cache`, but not launched."""
    from triton.runtime import driver

    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    monkeypatch.setattr(driver, "_active", _Driver())
    monkeypatch.setattr(
        availability, "_reason", lambda device, _: None if device.type == "cuda" else "no GPU"
    )


def kernels_asked_for(monkeypatch: pytest.MonkeyPatch, cache: Path) -> set[str]:
    """The names of kernels that rehearsals ask for from now on; none is compiled."""
    from dreambooth.kernels.device import launching

    asked: set[str] = set()
    pretend_an_h100(monkeypatch, cache)
    monkeypatch.setattr(launching, "_compile", lambda kernel, *_, **__: asked.add(kernel.__name__))
    return asked
