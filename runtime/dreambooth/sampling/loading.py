"""Loading a model for sampling."""

from pathlib import Path

import torch

from dreambooth.models.load import load_model
from dreambooth.sampling.devices import sampling_dtype
from dreambooth.sampling.sampler import Sampler


def load_sampler(folder: str, lora: str | None, device: torch.device) -> Sampler:
    """The sampler of the diffusers folder `folder`, with the LoRA weights of `lora` merged in."""
    model = load_model(Path(folder))
    if lora is not None:
        model.load_lora(Path(lora))
    return Sampler(model.to(device, sampling_dtype(device)), device)
