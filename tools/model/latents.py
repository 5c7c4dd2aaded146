"""Latents of all samples, made once: the network that draws never sees pixels."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.model import autoencoder
from tools.model.composition import Composer
from tools.model.device import mixed_precision
from tools.model.networks import CHANNELS, LATENT

LOG = logging.getLogger(__name__)

_CHUNK = 256


@torch.no_grad()
def write_latents(network: Any, composer: Composer, path: Path, seed: int) -> None:
    """Encodes every sample to [N, CHANNELS, LATENT, LATENT] bfloat16; whole or not at all."""
    device = composer.pixels.device
    network.to(memory_format=torch.channels_last)
    chance = torch.Generator(device).manual_seed(seed)
    count = len(composer)
    unfinished = path.with_suffix(".part")
    shape = (count, CHANNELS, LATENT, LATENT)
    # NumPy has no bfloat16: the bits travel as integers.
    bits = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.int16, shape=shape)
    for begin in range(0, count, _CHUNK):
        which = torch.arange(begin, min(begin + _CHUNK, count), device=device)
        pictures = composer.compose(which).contiguous(memory_format=torch.channels_last)
        with mixed_precision(device):
            mean, log_variance = autoencoder.posterior(network, pictures)
        noise = torch.randn(mean.shape, generator=chance, device=device)
        latents = (mean + torch.exp(0.5 * log_variance) * noise).to(torch.bfloat16)
        part = latents.contiguous().view(torch.int16).cpu().numpy()
        bits[begin : begin + len(part)] = part
    bits.flush()
    del bits
    unfinished.replace(path)
    LOG.info("latents: %d pictures", count)


def read_latents(path: Path, device: torch.device) -> Tensor:
    """What `write_latents` wrote, on the device."""
    return torch.from_numpy(np.load(path)).to(device).view(torch.bfloat16)
