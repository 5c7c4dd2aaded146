"""Training of the network that draws, with the text encoder that tells it what."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.model.device import Wrap, mixed_precision
from tools.model.fitting import Task
from tools.model.networks import SCHEDULE, STEPS, Widths, new_text_encoder, new_unet
from tools.model.tokenizer import LENGTH

BATCH = 512
# Share of samples without a caption: classifier-free guidance needs to know what that looks like.
_UNCAPTIONED = 0.12


def new(widths: Widths, tokenizer: Any, seed: int) -> tuple[Any, Any]:
    """Untrained UNet and text encoder."""
    torch.manual_seed(seed)
    return new_unet(widths), new_text_encoder(widths, tokenizer)


def task(
    networks: tuple[Any, Any],
    latents: Tensor,
    tokens: Tensor,
    empty: Tensor,
    wrap: Wrap,
    identity: str,
    batch: int,
) -> Task:
    """What UNet and text encoder learn together: to predict v (Salimans & Ho, 2202.00512).

    Args:
        networks: UNet and text encoder.
        latents: [N, CHANNELS, LATENT, LATENT].
        tokens: Ids of each sample's captions, [N, captions, LENGTH].
        empty: Ids of an empty caption, [LENGTH].
        wrap: `compiled` or `as_it_is`.
        identity: Which latents these are.
        batch: Samples a step.
    """
    unet, text_encoder = networks
    device = latents.device
    unet.to(device, memory_format=torch.channels_last).train()
    text_encoder.to(device).train()
    signal, noise_level = (level.to(device) for level in noise_schedule())
    stratum = torch.arange(batch, device=device)

    def predict(noisy: Tensor, when: Tensor, ids: Tensor, target: Tensor) -> Tensor:
        words = text_encoder(ids)[0]
        predicted = unet(noisy, when, encoder_hidden_states=words, return_dict=False)[0]
        return F.mse_loss(predicted.float(), target)

    forward = wrap(predict)

    def loss(chance: torch.Generator) -> Tensor:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=chance, device=device)

        which = torch.randint(len(latents), (batch,), generator=chance, device=device)
        variant = torch.randint(tokens.shape[1], (batch,), generator=chance, device=device)
        ids = torch.where(uniform(batch, 1) < _UNCAPTIONED, empty, tokens[which, variant].long())
        # One level of noise from each of as many equal parts of the schedule.
        when = ((stratum + uniform(batch)) * (STEPS / batch)).long().clamp(0, STEPS - 1)
        clean = latents[which].float()
        noise = torch.randn(clean.shape, generator=chance, device=device)
        alpha, sigma = signal[when][:, None, None, None], noise_level[when][:, None, None, None]
        noisy = (alpha * clean + sigma * noise).contiguous(memory_format=torch.channels_last)
        with mixed_precision(device):
            return forward(noisy, when, ids, alpha * noise - sigma * clean)

    return Task(
        name="denoiser",
        networks={"unet": unet, "text_encoder": text_encoder},
        loss=loss,
        identity=f"{identity}/batch {batch}",
        batch=batch,
        rate=1e-3,
        rise=300,
        least=0.01,
        decay=0.01,
        memory=0.9996,
    )


def noise_schedule() -> tuple[Tensor, Tensor]:
    """Share of signal and of noise at each step, each [STEPS]."""
    from diffusers import DDIMScheduler

    kept: Tensor = DDIMScheduler(**SCHEDULE).alphas_cumprod
    return kept.sqrt(), (1 - kept).sqrt()


def empty_caption(tokenizer: Any, device: torch.device) -> Tensor:
    """Ids of no text, [LENGTH]."""
    ids = tokenizer("", padding="max_length", max_length=LENGTH)["input_ids"]
    return torch.tensor(ids, device=device)
