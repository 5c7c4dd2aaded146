"""Compiling kernels ahead, side by side, by going through the motions without any data.

Triton compiles a kernel when it is first called, one after the other: the first step on a machine
waits half a minute and more for some sixty of them. In a rehearsal the same code runs on tensors
that are shapes alone (torch's meta device), in no time and without memory; the kernels that it
would launch are compiled in threads instead, on all processors, and are there when they are
called for real.
"""

import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from dreambooth.processors import usable_cpus

_log = logging.getLogger(__name__)

SHAPES = torch.device("meta")
_now = False


def is_rehearsing() -> bool:
    """Whether kernels are to be compiled rather than launched."""
    return _now


def rehearse(what: str, work: Callable[[], object]) -> None:
    """Compiles what `work` would launch, for this process's GPU; does nothing if that was done.

    Whatever goes wrong is logged and no more: kernels are compiled one by one then, as they are
    called. Not while another thread of this process uses kernels.

    Args:
        what: All that the kernels depend on but the GPU, the kernels' code and Triton.
        work: Computes on `SHAPES`.
    """
    try:
        done = _marker(what)
        if done.exists():
            return
        _compile(work)
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()
    except Exception as error:
        _log.warning("kernels are not compiled ahead: %s: %s", type(error).__name__, error)


def _compile(work: Callable[[], object]) -> None:
    from triton import AsyncCompileMode

    global _now
    with ThreadPoolExecutor(usable_cpus(), "compile") as threads, AsyncCompileMode(threads):
        _now = True
        try:
            work()
        finally:
            _now = False


def _marker(what: str) -> Path:
    """The file that says so, beside the compiled kernels: whoever removes them removes it, too."""
    import triton
    from triton.runtime import driver

    digest = hashlib.sha256(
        f"{what} {triton.__version__} {driver.active.get_current_target()}".encode()
    )
    for file in sorted((Path(__file__).parent / "device").glob("*.py")):
        digest.update(file.read_bytes())
    return Path(triton.knobs.cache.dir) / f"rehearsed-{digest.hexdigest()}"
