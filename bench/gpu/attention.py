"""Torch's kernels for attention, by name."""

import contextlib
from collections.abc import Iterator

from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


@contextlib.contextmanager
def only(name: str) -> Iterator[None]:
    """Attention by one kernel; shapes that it cannot do are an error."""
    with sdpa_kernel(BACKENDS[name]):
        yield


@contextlib.contextmanager
def preferring(name: str | None) -> Iterator[None]:
    """Attention by one kernel where it can, else by another; None leaves the choice to torch."""
    if name is None:
        yield
        return
    others = [backend for other, backend in BACKENDS.items() if other != name]
    order = [BACKENDS[name], *others, SDPBackend.MATH]
    with sdpa_kernel(order, set_priority=True):
        yield
