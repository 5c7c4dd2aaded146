"""What one GPU can do with Stable Diffusion's networks, and where its time goes.

The networks are those of CompVis/stable-diffusion-v1-4 with random weights; text is random token
ids, so no tokenizer is needed. Every section runs in a process of its own and prints as it goes.

    python -m bench.gpu_limits                          all sections, results beside the others
    python -m bench.gpu_limits --section steps          only these (may be given several times)
    python -m bench.gpu_limits --tiny --out FILE        with tiny networks, to try the bench
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.gpu.sections import Section, run_child, run_chosen, section_parser

if TYPE_CHECKING:
    from bench.gpu.architecture import Architecture

RESULTS = Path(__file__).parent / "results" / "gpu_limits.json"
BUDGET_SECONDS = 420.0


# What computes is imported where it runs: this process only waits.
def _of(tiny: bool) -> "Architecture":
    from bench.gpu.architecture import SD14, TINY

    return TINY if tiny else SD14


def _ceilings(tiny: bool) -> dict[str, float]:
    from bench.gpu.ceilings import ceilings

    found = ceilings(256, 2**20) if tiny else ceilings()
    for name, rate in found.items():
        unit = "GB/s" if name == "copy" else "TFLOP/s"
        print(f"{name}: {rate / (1e9 if name == 'copy' else 1e12):.1f} {unit}", flush=True)
    return found


def _flops(tiny: bool) -> dict[str, Any]:
    from bench.gpu.ceilings import count, picture_flops, step_flops

    counted = count(_of(tiny))
    counted["picture"] = picture_flops(counted)
    counted["step_2_2"] = step_flops(counted, 4)
    for name, value in counted.items():
        text = value if isinstance(value, dict | str) else f"{value / 1e9:.2f} GFLOP"
        print(f"{name}: {text}", flush=True)
    return counted


def _kernels_sampling(tiny: bool) -> Iterator[dict[str, Any]]:
    import torch

    from bench.gpu.kernel_limit import decoder_shapes, kernel_limit, unet_shapes

    both = (torch.float16, torch.bfloat16)
    batch, pictures = (2, 1) if tiny else (32, 8)
    unet, decoder = unet_shapes(_of(tiny), batch), decoder_shapes(_of(tiny), pictures)
    yield kernel_limit(f"UNet forward, batch {batch}", unet, both, trained=False)
    yield kernel_limit(f"VAE decoder, batch {pictures}", decoder, both, trained=False)


def _kernels_training(tiny: bool) -> dict[str, Any]:
    import torch

    from bench.gpu.kernel_limit import kernel_limit, unet_shapes

    shapes = unet_shapes(_of(tiny), 4)
    title = "UNet forward and backward, batch 4"
    return kernel_limit(title, shapes, (torch.bfloat16,), trained=True)


def _forwards(tiny: bool, ways: str, batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    from bench.gpu import forwards

    chosen = getattr(forwards, ways)
    yield from forwards.unet_forwards(_of(tiny), chosen, (2,) if tiny else batches)


def _decoders(tiny: bool, ways: str, batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    from bench.gpu import forwards

    chosen = [way for way in getattr(forwards, ways) if "projections" not in way.name]
    yield from forwards.decoder_forwards(_of(tiny), chosen, (1,) if tiny else batches)


def _steps(tiny: bool, ways: str, pairs: Sequence[int]) -> Iterator[dict[str, Any]]:
    from bench.gpu import steps

    yield from steps.training_steps(_of(tiny), getattr(steps, ways), (1,) if tiny else pairs)


def _profiles(tiny: bool) -> Iterator[dict[str, Any]]:
    import torch

    from bench.gpu.forwards import HALF, Way, eager_forward
    from bench.gpu.profiles import profiled
    from bench.gpu.steps import STEP_WAYS, TrainingStep

    torch.backends.cudnn.benchmark = True
    batch = 2 if tiny else 32
    forward = eager_forward(_of(tiny), Way("fp16 channels_last", HALF, True), batch)
    yield profiled(f"UNet forward, fp16 channels_last, batch {batch}", forward)
    step = TrainingStep(_of(tiny), STEP_WAYS[0], 2)
    yield profiled("forward and backward, bf16 channels_last, 2+2", step.forward_backward)


def _section(measure: Callable[..., Any], *arguments: Any, seconds: float) -> Section:
    return Section(lambda tiny: measure(tiny, *arguments), seconds)


SECTIONS = {
    "ceilings": Section(_ceilings, 60),
    "flops": Section(_flops, 300),
    "forwards": _section(_forwards, "PLAIN_WAYS", (32, 64), seconds=120),
    "forwards-fused": _section(_forwards, "FUSED_WAYS", (16, 32, 64), seconds=90),
    "decoders": _section(_decoders, "PLAIN_WAYS", (8,), seconds=60),
    "decoders-fused": _section(_decoders, "FUSED_WAYS", (4, 8, 16), seconds=60),
    "steps": _section(_steps, "STEP_WAYS", (2, 8), seconds=100),
    "steps-fused": _section(_steps, "FUSED_STEP_WAYS", (2, 8), seconds=100),
    "profiles": Section(_profiles, 60),
    "kernels-sampling": Section(_kernels_sampling, 120),
    "kernels-training": Section(_kernels_training, 90),
    "forwards-compiled": _section(_forwards, "COMPILED_WAYS", (32,), seconds=150),
    "steps-compiled": _section(_steps, "COMPILED_STEP_WAYS", (2,), seconds=200),
    "forwards-autotuned": _section(_forwards, "AUTOTUNED_WAYS", (32,), seconds=300),
}


def main() -> None:
    """Measures, prints, writes."""
    parser = section_parser(__doc__, SECTIONS, RESULTS, BUDGET_SECONDS)
    options = parser.parse_args()
    if options.child:
        run_child(SECTIONS, options.child[0], options.tiny, Path(options.child[1]))
        return
    run_chosen("bench.gpu_limits", SECTIONS, options)


if __name__ == "__main__":
    main()
