"""Compiling a step's kernels while there is nothing to train on yet."""

from pathlib import Path

import torch

from dreambooth.kernels.availability import check_available
from dreambooth.kernels.rehearsal import SHAPES, rehearse
from dreambooth.models.load import load_model
from dreambooth.models.shapes import shapes_of
from dreambooth.sampling.devices import keep_compiled, this_device
from dreambooth.spans import Activity, span
from dreambooth.training.distributed import Alone
from dreambooth.training.engine import EngineParts
from dreambooth.training.group import Preview
from dreambooth.training.latents import LatentCache
from dreambooth.training.masters import MasterEngine
from dreambooth.training.settings import TrainerSettings, TrainingData


def rehearse_training(preview: Preview) -> None:
    """Compiles the kernels of a step on this process's GPU; without one there is nothing to do."""
    device = this_device()
    if device.type != "cuda" or check_available(device) is not None:
        return
    keep_compiled()
    with span(Activity.COMPILE):
        shapes = shapes_of(Path(preview.base_model))
        what = f"{preview.pairs} {preview.lora_rank} {preview.text_encoder} {shapes}"
        rehearse(f"training {what}", lambda: take_steps(preview))


def take_steps(preview: Preview) -> None:
    """Goes through a step on `SHAPES`."""
    model = load_model(Path(preview.base_model), weights=False)
    if preview.lora_rank is not None:
        with SHAPES:
            model.add_lora(preview.lora_rank, 1.0, text_encoder=preview.text_encoder, seed=0)
    model.to(SHAPES)
    picture = torch.empty((1, 1, *model.latent_shape), device=SHAPES)
    pictures = LatentCache(picture, picture)
    ids = model.tokenize([""])
    data = TrainingData(pictures, pictures, ids, ids)
    settings = TrainerSettings(
        learning_rate=0.0, prior_weight=1.0, gradient_clip=1.0, text_encoder=preview.text_encoder
    )
    MasterEngine(EngineParts(model, data, settings, Alone(), SHAPES, preview.pairs))
