"""Where the recipe runs: a GPU in bfloat16 if there is one, else the processor in float32."""

import logging
from collections.abc import Callable
from typing import Any

import torch

LOG = logging.getLogger(__name__)

Forward = Callable[..., torch.Tensor]
Wrap = Callable[[Forward], Forward]


def choose_device() -> torch.device:
    """The first GPU, set up for speed; the processor where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    LOG.info("GPU: %s, torch %s", torch.cuda.get_device_name(), torch.__version__)
    return torch.device("cuda")


def mixed_precision(device: torch.device) -> Any:
    """Context in which networks compute; weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def as_it_is(forward: Forward) -> Forward:
    """Doesn't compile."""
    return forward


def compiled(forward: Forward) -> Forward:
    """Compiles at the first call: twice as fast afterwards, but that takes one or two minutes."""
    fast = torch.compile(forward)
    chosen: list[Forward] = []

    def call(*inputs: torch.Tensor) -> torch.Tensor:
        if chosen:
            return chosen[0](*inputs)
        try:
            result = fast(*inputs)
        except Exception:  # whatever a compiler may raise: training does without it
            LOG.exception("torch.compile failed; going on without it")
            chosen.append(forward)
            return forward(*inputs)
        chosen.append(fast)
        return result

    return call
