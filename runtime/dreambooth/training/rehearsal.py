"""What a worker does for a training's first step while there is nothing to train on yet."""

from collections.abc import Sequence
from pathlib import Path

import torch

from dreambooth.kernels.availability import check_available
from dreambooth.kernels.rehearsal import SHAPES, rehearse
from dreambooth.models.family import ModelFamily
from dreambooth.models.load import load_model
from dreambooth.models.shapes import shapes_of
from dreambooth.sampling.devices import keep_compiled, this_device
from dreambooth.spans import Activity, span
from dreambooth.training.capture import Launch
from dreambooth.training.distributed import Alone
from dreambooth.training.engine import EngineParts, trainable_parameters, training_bytes
from dreambooth.training.group import Preview
from dreambooth.training.latents import LatentCache
from dreambooth.training.masters import MasterEngine
from dreambooth.training.memory import fits_beside_others
from dreambooth.training.settings import TrainerSettings, TrainingData


def rehearse_training(preview: Preview) -> None:
    """Compiles the kernels of a step on this process's GPU; without one there is nothing to do."""
    if check_available(this_device()) is not None:
        return
    keep_compiled()
    with span(Activity.COMPILE):
        shapes = shapes_of(Path(preview.base_model))
        what = f"{preview.pairs} {preview.lora_rank} {preview.text_encoder} {shapes}"
        rehearse(f"training {what}", lambda: take_steps(preview))


def fits_beside(preview: Preview, free: int) -> bool:
    """Whether the training finds room in `free` bytes that others leave on its GPU."""
    model = _model(preview)
    trained = trainable_parameters(model, text_encoder=preview.text_encoder).values()
    state = training_bytes(model, trained, torch.bfloat16)
    return fits_beside_others(state, preview.pairs, free)


def take_steps(preview: Preview) -> None:
    """Goes through a step on `SHAPES`."""
    _take_steps(preview, _model(preview).to(SHAPES), SHAPES)


def warm_up(preview: Preview, device: torch.device) -> None:
    """Takes steps that change nothing, with weights that are thrown away.

    The first time that a process computes something, libraries load their code and choose among
    it: of Stable Diffusion's step that takes ten seconds. Memory stays with the process.
    """
    model = _with_adapters(preview, load_for_training(Path(preview.base_model), device))
    with span(Activity.FIRST_RUN):
        _take_steps(preview, model, device, (Launch.EAGER,)).finish()


def load_for_training(folder: Path, device: torch.device) -> ModelFamily:
    """The base model in float32 on `device`.

    Raises:
        UserError: If it cannot be loaded.
    """
    as_stored = device.type != "cpu"
    model = load_model(folder, None if as_stored else torch.float32)
    return model.to(device, torch.float32)


def _take_steps(
    preview: Preview,
    model: ModelFamily,
    device: torch.device,
    launches: Sequence[Launch] | None = None,
) -> MasterEngine:
    """An engine that has taken the steps before its first, on nothing."""
    picture = torch.zeros((1, 1, *model.latent_shape), device=device)
    pictures = LatentCache(picture, picture)
    ids = model.tokenize([""])
    data = TrainingData(pictures, pictures, ids, ids)
    settings = TrainerSettings(
        learning_rate=0.0, prior_weight=1.0, gradient_clip=1.0, text_encoder=preview.text_encoder
    )
    parts = EngineParts(model, data, settings, Alone(), device, preview.pairs)
    return MasterEngine(parts, launches=launches)


def _model(preview: Preview) -> ModelFamily:
    """Of shapes alone."""
    model = load_model(Path(preview.base_model), weights=False)
    with SHAPES:
        return _with_adapters(preview, model)


def _with_adapters(preview: Preview, model: ModelFamily) -> ModelFamily:
    if preview.lora_rank is not None:
        model.add_lora(preview.lora_rank, 1.0, text_encoder=preview.text_encoder, seed=0)
    return model
