"""Forward passes of the UNet and the VAE's decoder in the ways they can be run."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.gpu.architecture import Architecture
from bench.gpu.attention import preferring
from bench.gpu.timing import graphed_milliseconds, milliseconds, synchronize
from dreambooth.sampling.devices import this_device


def unchanged(module: nn.Module) -> nn.Module:
    """The module as diffusers makes it."""
    return module


def fused(module: nn.Module) -> nn.Module:
    """The module with this project's kernels in it."""
    from dreambooth.kernels.fusing import fuse

    fuse(module)
    return module


def fused_projections(module: nn.Module) -> nn.Module:
    """The module with diffusers' joined query, key and value projections."""
    module.fuse_qkv_projections()  # type: ignore[operator]
    return module


def compiled(mode: str) -> Callable[[nn.Module], nn.Module]:
    """What Inductor makes of the module."""

    def change(module: nn.Module) -> nn.Module:
        module.forward = torch.compile(module.forward, mode=mode, dynamic=False, fullgraph=True)
        return module

    return change


@dataclass(frozen=True)
class Way:
    """One way of running a network; `attention` names the kernel that is preferred."""

    name: str
    dtype: torch.dtype
    channels_last: bool
    change: Callable[[nn.Module], nn.Module] = unchanged
    attention: str | None = None


HALF, BRAIN = torch.float16, torch.bfloat16
PLAIN_WAYS = (
    Way("fp16 contiguous", HALF, False),
    Way("fp16 channels_last", HALF, True),
    Way("bf16 channels_last", BRAIN, True),
    Way("fp16 channels_last, cuDNN attention", HALF, True, attention="cudnn"),
    Way("bf16 channels_last, cuDNN attention", BRAIN, True, attention="cudnn"),
    Way("fp16 channels_last, efficient attention", HALF, True, attention="efficient"),
    Way("fp16 channels_last, joined projections", HALF, True, fused_projections),
)
FUSED_WAYS = (
    Way("fp16 channels_last, our kernels", HALF, True, fused),
    Way("fp16 channels_last, our kernels, cuDNN attention", HALF, True, fused, "cudnn"),
    Way("bf16 channels_last, our kernels, cuDNN attention", BRAIN, True, fused, "cudnn"),
)
COMPILED_WAYS = (Way("fp16 channels_last, Inductor", HALF, True, compiled("default")),)
AUTOTUNED_WAYS = (
    Way(
        "fp16 channels_last, Inductor autotuned",
        HALF,
        True,
        compiled("max-autotune-no-cudagraphs"),
    ),
)


def unet_forwards(
    architecture: Architecture, ways: Sequence[Way], batches: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Milliseconds a sample of the UNet's forward pass, by way and batch; prints as it goes."""

    def call(unet: nn.Module, batch: int, way: Way) -> Callable[[], Tensor]:
        return _unet_call(architecture, unet, batch, way)

    return _measure("UNet", architecture.unet, call, ways, batches)


def eager_forward(architecture: Architecture, way: Way, batch: int) -> Callable[[], Tensor]:
    """One UNet call without gradients, launched kernel by kernel."""
    work = _unet_call(architecture, _made(architecture.unet, way), batch, way)

    def forward() -> Tensor:
        with torch.no_grad(), preferring(way.attention):
            return work()

    return forward


def _unet_call(
    architecture: Architecture, unet: nn.Module, batch: int, way: Way
) -> Callable[[], Tensor]:
    torch.manual_seed(1)
    with torch.device(this_device()):
        latents, times, hidden = architecture.unet_inputs(batch, way.dtype)
    latents = _laid_out(latents, way)
    return lambda: unet(latents, times, hidden, return_dict=False)[0]


def decoder_forwards(
    architecture: Architecture, ways: Sequence[Way], batches: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Milliseconds a picture of the VAE's decoder."""

    def call(vae: nn.Module, batch: int, way: Way) -> Callable[[], Tensor]:
        torch.manual_seed(1)
        with torch.device(this_device()):
            latents = _laid_out(architecture.latents(batch, way.dtype), way)
        return lambda: vae.decode(latents, return_dict=False)[0]  # type: ignore[operator]

    return _measure("VAE decoder", architecture.vae, call, ways, batches)


Call = Callable[[nn.Module, int, Way], Callable[[], Tensor]]


def _measure(
    title: str,
    make: Callable[[], nn.Module],
    call: Call,
    ways: Sequence[Way],
    batches: Sequence[int],
) -> Iterator[dict[str, Any]]:
    torch.backends.cudnn.benchmark = True
    reference = _reference(make, call, batches[0])
    for way in ways:
        row: dict[str, Any] = {"network": title, "way": way.name, "batches": {}}
        module: nn.Module | None = None
        try:
            module = _made(make, way)
            row |= _first(call(module, batches[0], way), way, reference)
            for batch in batches:
                row["batches"][batch] = _times(call(module, batch, way), batch, way)
        except Exception as error:
            row["failed"] = f"{type(error).__name__}: {str(error)[:400]}"
        del module
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _say(row)
        yield row


def _made(make: Callable[[], nn.Module], way: Way) -> nn.Module:
    with torch.device(this_device()):
        module = make()
    module = module.to(dtype=way.dtype).eval().requires_grad_(False)
    if way.channels_last:
        module = module.to(memory_format=torch.channels_last)
    return way.change(module)


def _laid_out(tensor: Tensor, way: Way) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if way.channels_last else tensor


def _reference(make: Callable[[], nn.Module], call: Call, batch: int) -> Tensor:
    """The output in float32, as diffusers computes it."""
    way = Way("reference", torch.float32, False)
    with torch.no_grad():
        return call(_made(make, way), batch, way)().float()


def _first(work: Callable[[], Tensor], way: Way, reference: Tensor) -> dict[str, float]:
    """The first call: what it takes, and how far from the reference it ends."""
    began = time.perf_counter()
    with torch.no_grad(), preferring(way.attention):
        output = work().float()
    synchronize()
    return {
        "first_call_s": time.perf_counter() - began,
        "error": float((output - reference).norm() / reference.norm()),
    }


def _times(work: Callable[[], Tensor], batch: int, way: Way) -> dict[str, float]:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with torch.no_grad(), preferring(way.attention):
        eager = milliseconds(work, rounds=3, warm=2)
        graphed = graphed_milliseconds(work, rounds=3)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {
        "ms_a_sample": graphed / batch,
        "launched_ms_a_sample": eager / batch,
        "peak_gib": peak / 2**30,
    }


def _say(row: dict[str, Any]) -> None:
    parts = [
        f"b{batch} {times['ms_a_sample']:.3f} (launched {times['launched_ms_a_sample']:.3f}, "
        f"{times['peak_gib']:.1f} GiB)"
        for batch, times in row["batches"].items()
    ]
    failed = f" FAILED {row['failed']}" if "failed" in row else ""
    error = ""
    if "error" in row:
        error = f"; first call {row['first_call_s']:.1f} s, error {row['error']:.1e}"
    what = f"{row['network']}, {row['way']}"
    print(f"{what}: ms a sample: {'; '.join(parts)}{error}{failed}", flush=True)
