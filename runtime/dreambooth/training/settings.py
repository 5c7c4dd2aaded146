"""What training is given: how to step, and on what."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreambooth.training.latents import LatentCache


@dataclass(frozen=True)
class TrainerSettings:
    """What a step does; the manifest's `training` after defaults.

    Attributes:
        decay_steps: The rate falls to zero over this many steps, along a cosine; None keeps it
            constant.
        compute_dtype: Type that forward and backward compute in. None takes what is fastest where
            training runs.
        weights_dtype: Type of the trained weights. float32 always, but for the benchmark that
            shows why.
    """

    learning_rate: float
    prior_weight: float
    gradient_clip: float
    text_encoder: bool
    weight_decay: float = 1e-2
    decay_steps: int | None = None
    compute_dtype: torch.dtype | None = None
    weights_dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class TrainingData:
    """Cached pictures, and the two prompts' token ids, `[1, L_i]` for each text encoder."""

    photos: LatentCache
    class_images: LatentCache
    photo_ids: tuple[Tensor, ...]
    class_ids: tuple[Tensor, ...]

    def on(self, device: torch.device) -> "TrainingData":
        """With the pictures in that device's memory."""
        return replace(
            self, photos=self.photos.to(device), class_images=self.class_images.to(device)
        )


def learning_rate(settings: TrainerSettings, step: int) -> float:
    """The rate of optimizer step `step`, counted from 0."""
    if settings.decay_steps is None:
        return settings.learning_rate
    progress = min(step / settings.decay_steps, 1.0)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
