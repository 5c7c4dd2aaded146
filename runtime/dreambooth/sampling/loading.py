"""Loading a model for sampling."""

from pathlib import Path

import torch

from dreambooth.models.stable_diffusion import StableDiffusion
from dreambooth.sampling.sampler import Sampler


def sampling_dtype(device: torch.device) -> torch.dtype:
    """Weights' type for sampling: half precision, in the format the device is fast with."""
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def load_sampler(folder: str, lora: str | None, device: torch.device) -> Sampler:
    """The sampler of the diffusers folder `folder`, with the LoRA weights of `lora` merged in."""
    model = StableDiffusion.load(Path(folder))
    if lora is not None:
        model.load_lora(Path(lora))
    return Sampler(model.to(device, sampling_dtype(device)), device)
