"""How fast the product trains, in how much memory, and what its arithmetic does to learning."""

import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench.gpu.profiles import profiled
from bench.gpu.scratch import CLASS_PROMPT, SUBJECT_PROMPT, model_folder, photo_files
from bench.gpu.timing import synchronize
from dreambooth.models.family import ModelFamily
from dreambooth.models.load import load_model
from dreambooth.sampling.devices import this_device
from dreambooth.training.distributed import Alone
from dreambooth.training.latents import LatentCache, encode_pictures
from dreambooth.training.schedule import PairSchedule
from dreambooth.training.trainer import Trainer, TrainerSettings, TrainingData

PHOTOS, CLASS_IMAGES = 5, 200
LORA_RANK = 4
FULL = TrainerSettings(learning_rate=5e-6, prior_weight=1.0, gradient_clip=1.0, text_encoder=True)
FROZEN_TEXT = replace(FULL, text_encoder=False)
GIGABYTE = 10**9


def batches(tiny: bool) -> Iterator[dict[str, Any]]:
    """Milliseconds a step and images a second, by method and number of pairs."""
    pairs = (1, 2) if tiny else (2, 8, 16)
    for number in pairs:
        yield _measured(tiny, "full", FULL, number)
    yield _measured(tiny, "full, text encoder frozen", FROZEN_TEXT, pairs[0])
    for number in pairs[:1] if tiny else (2, 8):
        yield _measured(tiny, "LoRA", FULL, number)


def memory_caps(tiny: bool) -> Iterator[dict[str, Any]]:
    """Full in 24 GB and LoRA in 10 GB, with all that a worker does before: load, encode, capture.

    The cap is on torch's allocator, in units of 10^9 bytes; a card that is sold as 24 GB has more,
    of which the CUDA context takes about half a gigabyte.
    """
    for name, gigabytes in (("full", 24), ("LoRA", 10)):
        if torch.cuda.is_available():
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(gigabytes * GIGABYTE / total)
        yield {"cap_gb": gigabytes, **_measured(tiny, name, FULL, 2, encode=True)}
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(1.0)


def loss_curves(tiny: bool) -> dict[str, Any]:
    """50 steps as the product takes them, against float32 operation by operation.

    The noise that both must be compared with: how far float32's losses are from step to step, and
    from those of the same steps with every weight rounded once to bfloat16 at the start.
    """
    steps = 6 if tiny else 50
    torch.backends.cudnn.allow_tf32 = False
    exact = replace(FULL, compute_dtype=torch.float32)
    # On a CPU the product's own choice is no other engine.
    curves = {
        "ours": _losses(tiny, replace(FULL, compute_dtype=None), steps),
        "float32": _losses(tiny, exact, steps),
        "float32, weights rounded once": _losses(tiny, exact, steps, rounded=True),
    }
    reference = torch.tensor(curves["float32"])
    found: dict[str, Any] = {"steps": steps, "curves": curves, "mean_loss": reference.mean().item()}
    found["step_to_step_deviation"] = reference.std().item()
    for name in ("ours", "float32, weights rounded once"):
        apart = (torch.tensor(curves[name]) - reference).abs() / reference
        found[name] = {"mean_relative": apart.mean().item(), "most_relative": apart.max().item()}
    print(f"loss curves: { {k: v for k, v in found.items() if k != 'curves'} }", flush=True)
    return found


def updates_kept(tiny: bool) -> dict[str, Any]:
    """Which weights a step changes at learning rate 5e-6, with float32 masters and without."""
    steps = 3 if tiny else 8
    pure = replace(FULL, weights_dtype=torch.bfloat16, compute_dtype=torch.bfloat16)
    found: dict[str, Any] = {"steps": steps, "learning_rate": FULL.learning_rate}
    moves: dict[str, Tensor] = {}
    for name, settings in (("pure bfloat16", pure), ("float32 masters", FULL)):
        trainer, _ = _trainer(tiny, "full", settings, 2)
        start = _flat(trainer)
        before, changed = start, []
        for _ in range(steps):
            trainer.train_step()
            after = _flat(trainer)
            changed.append(float((after != before).float().mean()))
            before = after
        moves[name] = before - start
        found[name] = {"changed_a_step": median(changed), "moved": float(moves[name].norm())}
        trainer.finish()
        del trainer, start, before, after
        _release()
    pure_move, full_move = moves["pure bfloat16"], moves["float32 masters"]
    projection = (pure_move @ full_move) / (full_move @ full_move)
    found["pure_progress"] = float(projection)
    print(f"updates kept: {found}", flush=True)
    return found


def profiles(tiny: bool) -> Iterator[dict[str, Any]]:
    """On which kernels a step's time goes, at the notebook's batch and at a large one."""
    for pairs in (1, 2) if tiny else (2, 16):
        trainer, _ = _trainer(tiny, "full", FULL, pairs)

        def step(trainer: Trainer = trainer) -> None:
            trainer.advance()
            trainer.settle()

        yield profiled(f"a full step, {pairs} + {pairs}", step)
        trainer.finish()
        del trainer, step
        _release()


def _measured(
    tiny: bool, method: str, settings: TrainerSettings, pairs: int, *, encode: bool = False
) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "pairs": pairs}
    try:
        row |= _timed(tiny, method, settings, pairs, encode)
    except Exception as error:
        row["failed"] = f"{type(error).__name__}: {str(error)[:300]}"
    _release()
    print(f"training, {row}", flush=True)
    return row


def _timed(
    tiny: bool, method: str, settings: TrainerSettings, pairs: int, encode: bool
) -> dict[str, Any]:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer, setup = _trainer(tiny, method, settings, pairs, encode=encode)
    return {**setup, **timed_steps(trainer, 2 if tiny else 20)}


def timed_steps(trainer: Trainer, steps: int) -> dict[str, Any]:
    """Milliseconds a step, the median of three times `steps`; the trainer is used up."""
    for _ in range(2):
        trainer.train_step()
    spent = []
    for _ in range(3):
        synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            trainer.advance()
        trainer.settle()
        synchronize()
        spent.append((time.perf_counter() - began) / steps * 1e3)
    ms = median(spent)
    on_gpu = torch.cuda.is_available()
    said = trainer.engine.describe()
    images = 2e3 * trainer.schedule.batch_size / ms
    found = {"ms": ms, "images_a_second": images, "engine": said}
    if on_gpu:
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        found["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
    trainer.finish()
    return found


def _trainer(
    tiny: bool, method: str, settings: TrainerSettings, pairs: int, *, encode: bool = False
) -> tuple[Trainer, dict[str, float]]:
    device = this_device()
    began = time.perf_counter()
    model = load_model(model_folder(tiny)).to(device)
    synchronize()
    loaded = time.perf_counter()
    data = _encoded(tiny, model, device) if encode else random_data(model)
    if method == "LoRA":
        model.add_lora(LORA_RANK, float(LORA_RANK), text_encoder=settings.text_encoder, seed=0)
    model.autoencoder.to("cpu")
    synchronize()
    encoded = time.perf_counter()
    schedule = PairSchedule(0, len(data.photos), len(data.class_images), pairs)
    trainer = Trainer(model, data, schedule, settings, Alone(), device)
    synchronize()
    setup = time.perf_counter() - encoded
    return trainer, {"load_s": loaded - began, "encode_s": encoded - loaded, "setup_s": setup}


def _encoded(tiny: bool, model: ModelFamily, device: torch.device) -> TrainingData:
    files = photo_files(tiny)
    latents = encode_pictures(model, files, 0, device)
    return TrainingData(
        latents, latents, model.tokenize([SUBJECT_PROMPT]), model.tokenize([CLASS_PROMPT])
    )


def random_data(model: ModelFamily) -> TrainingData:
    """Latents out of nowhere, as many as a job has."""
    generator = torch.Generator().manual_seed(0)

    def cache(count: int) -> LatentCache:
        shape = (count, 1, *model.latent_shape)
        mean = torch.randn(shape, generator=generator)
        return LatentCache(mean, 0.1 * torch.rand(shape, generator=generator))

    return TrainingData(
        cache(PHOTOS),
        cache(CLASS_IMAGES),
        model.tokenize([SUBJECT_PROMPT]),
        model.tokenize([CLASS_PROMPT]),
    )


def _losses(
    tiny: bool, settings: TrainerSettings, steps: int, *, rounded: bool = False
) -> list[float]:
    trainer, _ = _trainer(tiny, "full", settings, 2)
    if rounded:
        weights = trainer.engine.weights()
        trainer.load_weights({name: w.bfloat16().float() for name, w in weights.items()})
    losses = [trainer.train_step() for _ in range(steps)]
    trainer.finish()
    del trainer
    _release()
    return losses


def _flat(trainer: Trainer) -> Tensor:
    """All trained weights as one float32 vector in the host's memory or the device's."""
    return torch.cat([w.detach().float().reshape(-1) for w in trainer.engine.weights().values()])


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
