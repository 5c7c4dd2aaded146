"""What the device and the arithmetic allow: measured ceilings, counted operations."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu.architecture import Architecture, parameters
from bench.gpu.timing import milliseconds
from bench.tables import ROOT
from dreambooth.sampling.devices import this_device
from dreambooth.workspace.atomic import read_json

SIDE = 8192
COPY_BYTES = 4 * 2**30
COUNTED = ROOT / "bench" / "results" / "flops.json"


def ceilings(side: int = SIDE, copy_bytes: int = COPY_BYTES) -> dict[str, float]:
    """FLOP/s of large matrix products and bytes/s of copies, all on random data."""
    device = this_device()
    found: dict[str, float] = {}
    for dtype in (torch.bfloat16, torch.float16):
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        spent = milliseconds(_product(left, right), rounds=7, repeats=10)
        found[f"matmul_{short(dtype)}"] = 2 * side**3 / spent * 1e3
    source = torch.randn(copy_bytes // 4, device=device)
    target = torch.empty_like(source)
    spent = milliseconds(lambda: target.copy_(source), rounds=7, repeats=5)
    # Read once, written once.
    found["copy"] = 2 * source.numel() * 4 / spent * 1e3
    return found


def _product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: left @ right


def short(dtype: torch.dtype) -> str:
    """A type's name without torch's."""
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]


def counted_before(architecture: Architecture) -> dict[str, Any]:
    """As `count`, from what `bench.gpu_limits` has counted, for it is the same on any machine."""
    known: dict[str, Any] = (read_json(COUNTED) or {}).get("flops", {})
    return known if known.get("architecture") == architecture.name else count(architecture)


def count(architecture: Architecture) -> dict[str, Any]:
    """Parameters, and FLOPs for one sample, of each network; nothing is computed."""
    with torch.device("meta"):
        unet, vae, text = architecture.unet(), architecture.vae(), architecture.text_encoder()
        latents, times, hidden = architecture.unet_inputs(1, torch.float32)
        pixels, ids = architecture.pixels(1, torch.float32), architecture.token_ids(1)
    work: dict[str, Callable[[], Any]] = {
        "unet": lambda: unet(latents, times, hidden, return_dict=False)[0],
        "text_encoder": lambda: text(input_ids=ids)[0],
        "vae_encoder": lambda: vae.encoder(pixels),
        "vae_decoder": lambda: vae.decoder(latents),
    }
    found: dict[str, Any] = {
        "architecture": architecture.name,
        "parameters": {"unet": parameters(unet), "text": parameters(text), "vae": parameters(vae)},
    }
    for name, forward in work.items():
        found[name] = _flops(forward)
    found["unet_trained"] = _flops(lambda: work["unet"]().sum().backward())
    found["text_encoder_trained"] = _flops(lambda: work["text_encoder"]().sum().backward())
    return found


def _flops(work: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def picture_flops(counted: dict[str, Any], steps: int = 50) -> float:
    """One picture with guidance: two evaluations a step, and decoding."""
    return float(2 * steps * counted["unet"] + counted["vae_decoder"])


def step_flops(counted: dict[str, Any], samples: int, *, text_encoder: bool = True) -> float:
    """A training step on cached latents; the two prompts are encoded once each."""
    text = 2 * counted["text_encoder_trained"] if text_encoder else 0.0
    return float(samples * counted["unet_trained"] + text)
