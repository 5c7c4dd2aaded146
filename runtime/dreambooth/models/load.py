"""From a folder to the family that knows it."""

from pathlib import Path
from typing import Protocol

import torch

from dreambooth.errors import UserError
from dreambooth.models.family import ModelFamily
from dreambooth.models.inventory import INDEX
from dreambooth.models.stable_diffusion import StableDiffusion
from dreambooth.models.stable_diffusion_3 import StableDiffusion3
from dreambooth.models.stable_diffusion_xl import StableDiffusionXL
from dreambooth.workspace.atomic import read_json


class Loads(Protocol):
    """What loads a model of one family."""

    def __call__(self, folder: Path, dtype: torch.dtype | None, *, weights: bool) -> ModelFamily:
        """See `load_model`."""


# By the class that model_index.json names.
FAMILIES: dict[str, Loads] = {
    "StableDiffusionPipeline": StableDiffusion.load,
    "StableDiffusionXLPipeline": StableDiffusionXL.load,
    "StableDiffusion3Pipeline": StableDiffusion3.load,
}


def load_model(
    folder: Path, dtype: torch.dtype | None = torch.float32, *, weights: bool = True
) -> ModelFamily:
    """Loads a diffusers folder from the disk alone; safetensors only.

    Args:
        folder: With a model_index.json that names one of the families' pipelines.
        dtype: Of the weights; None keeps that of the files, which are then read only when they
            are used: for a device that converts them itself.
        weights: False makes networks of shapes alone, on torch's meta device: they take neither
            time nor memory, and compute nothing.

    Raises:
        UserError: If it is of no known family, or a part is missing or not what its
            configuration says.
    """
    index = read_json(folder / INDEX)
    pipeline = index.get("_class_name") if isinstance(index, dict) else None
    if pipeline not in FAMILIES:
        found = f"is a {pipeline}" if pipeline else f"has no {INDEX} that names a pipeline"
        raise UserError(
            f"the model in {folder} {found}, which cannot be tuned here",
            field="spec.model",
            remedy=f"Use a diffusers folder of a {' or '.join(FAMILIES)}.",
            reason="UnsupportedModel",
        )
    return FAMILIES[pipeline](folder, dtype, weights=weights)
