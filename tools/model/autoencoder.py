"""Training of the autoencoder, whose latents the rest of the model works in."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.model.composition import Composer
from tools.model.device import Wrap, mixed_precision
from tools.model.fitting import Task
from tools.model.networks import CHANNELS, LATENT, Widths, new_autoencoder

LOG = logging.getLogger(__name__)

BATCH = 96
# Samples that mean and deviation are taken over.
_MEASURED = 8192
_CHUNK = 64


def task(network: Any, composer: Composer, wrap: Wrap, identity: str, batch: int) -> Task:
    """What the autoencoder learns: to give back composed pictures.

    `wrap` is `compiled` or `as_it_is`; `identity` says which samples these are.
    """
    device = composer.pixels.device
    network.to(device, memory_format=torch.channels_last).train()
    forward = wrap(lambda pictures, noise: reconstruction_loss(network, pictures, noise))

    def loss(chance: torch.Generator) -> Tensor:
        which = torch.randint(len(composer), (batch,), generator=chance, device=device)
        pictures = composer.compose(which).contiguous(memory_format=torch.channels_last)
        shape = (batch, CHANNELS, LATENT, LATENT)
        noise = torch.randn(shape, generator=chance, device=device)
        with mixed_precision(device):
            return forward(pictures, noise)

    return Task(
        name="autoencoder",
        networks={"vae": network},
        loss=loss,
        identity=f"{identity}/batch {batch}",
        batch=batch,
        rate=1e-3,
        rise=100,
        least=0.0,
        decay=1e-4,
        memory=0.0,
    )


def reconstruction_loss(network: Any, pictures: Tensor, noise: Tensor) -> Tensor:
    """Absolute and squared error, error of edges and of areas, and a little of KL divergence."""
    mean, log_variance = posterior(network, pictures)
    latents = mean + torch.exp(0.5 * log_variance) * noise
    difference = decode(network, latents).float() - pictures.float()
    across = (difference[..., 1:] - difference[..., :-1]).abs().mean()
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
    areas = F.avg_pool2d(difference, 4).abs().mean()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    error = difference.abs().mean() + difference.square().mean()
    return error + 0.5 * (across + down) + 0.5 * areas + 3e-4 * divergence


def posterior(network: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of latents, each [B, CHANNELS, LATENT, LATENT]."""
    moments: Tensor = network.quant_conv(network.encoder(pictures))
    mean, log_variance = moments.float().chunk(2, 1)
    return mean, log_variance.clamp(-20, 10)


def decode(network: Any, latents: Tensor) -> Tensor:
    """Pictures of latents."""
    pictures: Tensor = network.decoder(network.post_quant_conv(latents))
    return pictures


@torch.no_grad()
def normalise(network: Any, composer: Composer) -> None:
    """Makes each channel of latents have mean 0 and deviation 1, and measures what is lost.

    Mean and deviation go into the 1 × 1 convolutions on both sides of the latents, so that the
    network stays a plain one: pictures are decoded as before.
    """
    network.eval()
    means = [posterior(network, part)[0] for part in _parts(composer, _MEASURED)]
    latents = torch.cat(means)
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    fold_statistics(network, mean, deviation)
    LOG.info("autoencoder: PSNR %.2f dB", psnr(network, composer))


@torch.no_grad()
def fold_statistics(network: Any, mean: Tensor, deviation: Tensor) -> None:
    """Lets latents be (old - mean) / deviation, each [CHANNELS], and decodes them as before."""
    weight, bias = network.quant_conv.weight, network.quant_conv.bias
    weight[:CHANNELS] /= deviation[:, None, None, None]
    bias[:CHANNELS] = (bias[:CHANNELS] - mean) / deviation
    # The posterior's variance is a logarithm: it shrinks by as much.
    bias[CHANNELS:] -= 2 * deviation.log()
    weight, bias = network.post_quant_conv.weight, network.post_quant_conv.bias
    bias += weight[:, :, 0, 0] @ mean
    weight *= deviation[None, :, None, None]


@torch.no_grad()
def psnr(network: Any, composer: Composer, count: int = 64) -> float:
    """Peak signal-to-noise ratio in dB of the first `count` samples, encoded and decoded."""
    errors = []
    for pictures in _parts(composer, count):
        restored = decode(network, posterior(network, pictures)[0]).clamp(-1, 1)
        errors.append((restored - pictures).square().mean((1, 2, 3)))
    # Values go from -1 to 1: the peak is 2.
    return 10 * math.log10(4 / torch.cat(errors).mean().item())


def save(network: Any, folder: Path) -> None:
    """Writes it, whole or not at all."""
    unfinished = folder.with_suffix(".part")
    network.save_pretrained(unfinished)
    unfinished.rename(folder)


def load(folder: Path, device: torch.device) -> Any:
    """The trained network, in float32."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder, local_files_only=True).to(device).eval()


def new(widths: Widths, seed: int) -> Any:
    """An untrained network."""
    torch.manual_seed(seed)
    return new_autoencoder(widths)


def _parts(composer: Composer, count: int) -> Iterator[Tensor]:
    for begin in range(0, min(count, len(composer)), _CHUNK):
        end = min(begin + _CHUNK, count, len(composer))
        yield composer.compose(torch.arange(begin, end, device=composer.pixels.device))
