"""How fast the product draws, batch by batch, and whether batches change pictures."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.gpu.profiles import profiled
from bench.gpu.scratch import CLASS_PROMPT, model_folder
from bench.gpu.timing import synchronize
from dreambooth.sampling.devices import this_device
from dreambooth.sampling.machines import load_machine
from dreambooth.sampling.settings import PictureRequest, SamplingSettings, picture_seed
from dreambooth.sampling.studio import Machine, draw

GUIDANCE = 7.5
STEPS = 50
# Steps of the two runs from whose difference the time of one step follows.
FEW, MORE = 6, 16


def batches(tiny: bool) -> Iterator[dict[str, Any]]:
    """Seconds a picture with 50 steps at each batch size, in one process that does nothing else."""
    machine, loading = _machine(tiny)
    for batch in (1, 2) if tiny else (1, 4, 16, 32):
        row: dict[str, Any] = {"batch": batch, "load_s": loading}
        try:
            row |= measure(machine, batch)
        except torch.cuda.OutOfMemoryError:
            row["failed"] = "out of memory"
        machine.release()
        print(f"drawing, {_words(row)}", flush=True)
        yield row


def stream(tiny: bool) -> dict[str, Any]:
    """Many pictures as the stages' processes draw them: decoding beside the next batch.

    The batch is what the product chooses. All are drawn twice, and the second time counts: the
    first looks for what fits, chooses kernels, and records a graph.
    """
    machine, loading = _machine(tiny)
    settings = _settings(4 if tiny else STEPS)
    count = 24 if tiny else 96
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    spent, batches = [], []
    for _ in range(2):
        began = time.perf_counter()
        batches = [len(part.pictures) for part in draw(machine, _requests(count), settings)]
        spent.append(time.perf_counter() - began)
    first, second = spent
    found = {
        "batch": batches[0],
        "seconds_a_picture": second / count,
        "images_a_second": count / second,
        "setup_s": max(0.0, first - second),
        "load_s": loading,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0,
    }
    print(f"drawing {count} pictures: {found}", flush=True)
    return found


def same_pictures(tiny: bool) -> dict[str, Any]:
    """Pictures drawn together against the same pictures drawn alone, in grey levels of 255.

    Of one step of DDIM: random weights make a chaotic sampler, in which many steps would blow up
    the last bits in which kernels of different shapes differ.
    """
    machine, _ = _machine(tiny)
    settings = SamplingSettings("ddim", 1, GUIDANCE)
    count = 2 if tiny else 8
    requests = _requests(count)
    together = _sample(machine, requests, settings)
    machine.release()
    alone = np.concatenate([_sample(machine, [each], settings) for each in requests])
    apart = np.abs(together.astype(np.int16) - alone.astype(np.int16))
    others = np.abs(together[0].astype(np.int16) - together[1].astype(np.int16))
    found = {
        "pictures": count,
        "mean": float(apart.mean()),
        "p999": float(np.quantile(apart, 0.999)),
        "most": int(apart.max()),
        "share_of_equal_values": float((apart == 0).mean()),
        "mean_between_seeds": float(others.mean()),
        "deviation": float(together.std()),
    }
    print(f"together against alone: {found}", flush=True)
    return found


def profile(tiny: bool) -> dict[str, Any]:
    """On which kernels a batch's time goes: some steps and the decoding."""
    machine, _ = _machine(tiny)
    batch, steps = (2, 2) if tiny else (32, 10)
    requests, settings = _requests(batch), _settings(steps)
    title = f"{steps} guided steps of {batch} pictures, decoded"
    return profiled(title, lambda: _sample(machine, requests, settings))


def _machine(tiny: bool) -> tuple[Machine, float]:
    device = this_device()
    if device.type == "cuda":
        torch.cuda.init()
    began = time.perf_counter()
    machine = load_machine(str(model_folder(tiny)), None, device)
    synchronize()
    return machine, time.perf_counter() - began


def measure(machine: Machine, batch: int) -> dict[str, Any]:
    """Seconds a picture in batches of `batch`, from the difference of two numbers of steps."""
    requests = _requests(batch)
    began = time.perf_counter()
    _sample(machine, requests, _settings(2))
    setup = time.perf_counter() - began
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    few, more = (_seconds(machine, requests, _settings(steps)) for steps in (FEW, MORE))
    step = (more - few) / (MORE - FEW)
    seconds = (few - FEW * step + STEPS * step) / batch
    return {
        "seconds_a_picture": seconds,
        "images_a_second": 1 / seconds,
        "step_ms": step * 1e3,
        "setup_s": setup,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0,
    }


def _seconds(
    machine: Machine, requests: Sequence[PictureRequest], settings: SamplingSettings
) -> float:
    """The middle of three."""
    spent = []
    for _ in range(3):
        began = time.perf_counter()
        _sample(machine, requests, settings)
        spent.append(time.perf_counter() - began)
    return sorted(spent)[1]


def _sample(
    machine: Machine, requests: Sequence[PictureRequest], settings: SamplingSettings
) -> NDArray[np.uint8]:
    sampler: Any = machine.sampler
    pictures: NDArray[np.uint8] = sampler.sample(
        [request.prompt for request in requests],
        [request.seed for request in requests],
        settings,
    )
    return pictures


def _settings(steps: int) -> SamplingSettings:
    return SamplingSettings(None, steps, GUIDANCE)


def _requests(count: int) -> list[PictureRequest]:
    return [
        PictureRequest(index, 0, CLASS_PROMPT, picture_seed(0, CLASS_PROMPT, index, 0))
        for index in range(count)
    ]


def _words(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"batch {row['batch']}: {row['failed']}"
    return (
        f"batch {row['batch']}: {row['seconds_a_picture']:.4f} s a picture, step "
        f"{row['step_ms']:.1f} ms, set-up {row['setup_s']:.1f} s, {row['peak_gib']:.1f} GiB"
    )
