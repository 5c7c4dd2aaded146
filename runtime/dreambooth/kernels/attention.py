"""Scaled dot-product attention with the backend that is fastest for a shape, measured once.

torch has several implementations (cuDNN's, FlashAttention, the memory-efficient one) and picks by
a fixed order of preference. Which is fastest depends on head size, lengths, batch and GPU. So the
first eager call of a shape tries each on inputs of that shape, and the process remembers. Nothing
is measured while a CUDA graph is captured: the warm-up before it has called every shape. Where a
backward follows, torch's order stands: measuring would have to run backwards inside a forward.
"""

import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

CANDIDATES = (
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
)
FALLBACKS = (*CANDIDATES, SDPBackend.MATH)
WARM_UPS = 2
REPEATS = 5


@dataclass(frozen=True)
class Problem:
    """What decides which backend is fastest: shapes, strides, type and device.

    Attributes:
        query: Shape and strides, `[B, heads, L, D]`.
        key: The same of the keys.
        value: The same of the values.
        dtype: Of all three.
        device: Of all three.
    """

    query: tuple[tuple[int, ...], tuple[int, ...]]
    key: tuple[tuple[int, ...], tuple[int, ...]]
    value: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: torch.dtype
    device: torch.device

    def inputs(self) -> list[Tensor]:
        """Random query, key and value of this problem."""
        tensors = []
        for shape, strides in (self.query, self.key, self.value):
            tensor = torch.empty_strided(shape, strides, dtype=self.dtype, device=self.device)
            tensors.append(tensor.normal_())
        return tensors


Timer = Callable[[Problem, SDPBackend], float]
_chosen: dict[Problem, SDPBackend | None] = {}


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention, scaled by 1 / sqrt(D).

    Args:
        query: `[B, heads, L, D]`.
        key: `[B, heads, S, D]`.
        value: `[B, heads, S, D]`.
        mask: Added to the scores; with one, torch chooses.

    Returns:
        `[B, heads, L, D]`.
    """
    backend = None
    if mask is None and query.device.type == "cuda" and _is_plain_inference():
        backend = choose_backend(_problem(query, key, value))
    if backend is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    # The others stay allowed: what was measured on one call must not make another one fail. The
    # choice counts when a kernel is launched or captured; a replay needs no context.
    with sdpa_kernel(
        [backend, *(other for other in FALLBACKS if other != backend)], set_priority=True
    ):
        return F.scaled_dot_product_attention(query, key, value)


def choose_backend(problem: Problem, timer: Timer | None = None) -> SDPBackend | None:
    """The fastest backend for a problem; None leaves the choice to torch.

    Args:
        problem: What is to be computed.
        timer: Seconds that a backend takes; raises `RuntimeError` if it can't. By default it is
            measured on the problem's device.
    """
    if problem in _chosen:
        return _chosen[problem]
    if timer is None and torch.cuda.is_current_stream_capturing():
        return None
    seconds: dict[SDPBackend, float] = {}
    for backend in CANDIDATES:
        try:
            seconds[backend] = (timer or measure)(problem, backend)
        except RuntimeError:
            # It can't do this shape, or memory is short, which the work itself needs more.
            continue
    _chosen[problem] = min(seconds, key=seconds.__getitem__) if seconds else None
    return _chosen[problem]


def chosen_backends() -> dict[Problem, str]:
    """What has been chosen so far in this process, for reports."""
    return {
        problem: "torch's choice" if backend is None else backend.name
        for problem, backend in _chosen.items()
    }


def _is_plain_inference() -> bool:
    # Under autocast the type that will be computed in isn't known here.
    return not torch.is_grad_enabled() and not torch.is_autocast_enabled("cuda")


def _problem(query: Tensor, key: Tensor, value: Tensor) -> Problem:
    return Problem(
        query=(tuple(query.shape), query.stride()),
        key=(tuple(key.shape), key.stride()),
        value=(tuple(value.shape), value.stride()),
        dtype=query.dtype,
        device=query.device,
    )


def measure(problem: Problem, backend: SDPBackend) -> float:
    """Median seconds of one attention."""
    query, key, value = problem.inputs()

    def once() -> None:
        F.scaled_dot_product_attention(query, key, value)

    with (
        torch.no_grad(),
        sdpa_kernel(backend),
        warnings.catch_warnings(),
        torch.cuda.device(problem.device),
    ):
        # A backend that can't says why in warnings.
        warnings.simplefilter("ignore")
        for _ in range(WARM_UPS):
            once()
        events = []
        for _ in range(REPEATS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            once()
            end.record()
            events.append((start, end))
        torch.cuda.synchronize(problem.device)
    milliseconds: list[float] = [start.elapsed_time(end) for start, end in events]
    return statistics.median(milliseconds) / 1e3
