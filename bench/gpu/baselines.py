"""What there was before: the notebook's loops, and those of diffusers' own example script."""

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from bench import notebook
from bench.gpu.architecture import SD14, TINY
from bench.gpu.scratch import CLASS_PROMPT, SUBJECT_PROMPT, model_folder
from bench.gpu.timing import synchronize
from bench.plain_diffusers import DreamBoothLoop
from dreambooth.sampling.devices import this_device

PAIRS = 2
LEARNING_RATE = 5e-6
# diffusers' `--sample_batch_size`.
PEER_BATCH = 4
STEPS_BEFORE_TIMING = 5


def notebook_generation(tiny: bool) -> dict[str, Any]:
    """`StableDiffusionCallable`: half precision, one picture a call, 50 PNDM steps."""
    pictures = 2 if tiny else 4
    pipeline, loading = _pipeline(tiny)
    seconds = []
    for _ in range(pictures):
        began = time.perf_counter()
        notebook.generate(pipeline, [CLASS_PROMPT])
        synchronize()
        seconds.append(time.perf_counter() - began)
    # The first picture chooses kernels; of 200 it is one.
    return _told(
        "notebook, a picture a call",
        {
            "seconds_a_picture": median(seconds[1:]),
            "first_picture_s": seconds[0],
            "load_s": loading,
            "peak_gib": _peak(),
            "pictures": pictures,
        },
    )


def peer_generation(tiny: bool) -> dict[str, Any]:
    """Class pictures as diffusers' `train_dreambooth.py` makes them: half precision, 4 a call."""
    calls = 1 if tiny else 3
    pipeline, loading = _pipeline(tiny)
    seconds = []
    for _ in range(calls + 1):
        began = time.perf_counter()
        _ = pipeline([CLASS_PROMPT] * PEER_BATCH).images
        synchronize()
        seconds.append((time.perf_counter() - began) / PEER_BATCH)
    return _told(
        "diffusers' script, 4 a call",
        {"seconds_a_picture": median(seconds[1:]), "load_s": loading, "peak_gib": _peak()},
    )


def notebook_training(tiny: bool) -> dict[str, Any]:
    """The notebook's `train_fn` at 2 + 2 pictures: bfloat16 weights, the VAE in every step."""
    steps = 4 if tiny else 25
    clock = _Clock(tiny)
    config = notebook.NotebookConfig(
        model_folder(tiny),
        SUBJECT_PROMPT,
        CLASS_PROMPT,
        lr=LEARNING_RATE,
        max_train_steps=steps,
        train_batch_size=PAIRS,
    )
    began = time.perf_counter()
    notebook.train(config, clock.batches(), this_device())
    return _told(
        "notebook's training",
        {**clock.figures(), "load_s": clock.stamps[0] - began, "peak_gib": _peak()},
    )


def peer_training(tiny: bool) -> dict[str, Any]:
    """Diffusers' script at 2 + 2 with `--mixed_precision bf16` and `--train_text_encoder`."""
    steps = 4 if tiny else 20
    clock = _Clock(tiny)
    loop = DreamBoothLoop(
        model_folder(tiny),
        (SUBJECT_PROMPT, CLASS_PROMPT),
        PAIRS,
        LEARNING_RATE,
        this_device(),
        torch.bfloat16,
    )
    loop.train(clock.batches(), steps)
    return _told("diffusers' script's training", {**clock.figures(), "peak_gib": _peak()})


class _Clock:
    """Hands out ready-made pictures and notes when they are asked for: once a step."""

    def __init__(self, tiny: bool) -> None:
        torch.manual_seed(0)
        architecture = TINY if tiny else SD14
        self._pictures = architecture.pixels(2 * PAIRS, torch.float32).clamp(-1, 1)
        self.stamps: list[float] = []

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(photos, class pictures) for ever."""
        while True:
            # Both loops read the loss in every step, so the device is done with the one before.
            self.stamps.append(time.perf_counter())
            instance, prior = self._pictures.chunk(2)
            yield instance, prior

    def figures(self) -> dict[str, Any]:
        """Median and number of the steps that count."""
        pairs = zip(self.stamps, self.stamps[1:], strict=False)
        spent = [later - earlier for earlier, later in pairs]
        counted = spent[min(STEPS_BEFORE_TIMING, len(spent) - 1) :]
        ms = median(counted) * 1e3
        return {"ms": ms, "images_a_second": 2e3 * PAIRS / ms, "steps": len(counted)}


def _pipeline(tiny: bool) -> tuple[StableDiffusionPipeline, float]:
    began = time.perf_counter()
    pipeline = StableDiffusionPipeline.from_pretrained(
        model_folder(tiny),
        # CPUs have no half precision to speak of.
        torch_dtype=torch.float16 if torch.cuda.is_available() else torch.float32,
        safety_checker=None,
    ).to(this_device())
    synchronize()
    loading = time.perf_counter() - began
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, loading


def _peak() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def _told(what: str, figures: dict[str, Any]) -> dict[str, Any]:
    words = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    print(f"{what}: {words}", flush=True)
    return figures
