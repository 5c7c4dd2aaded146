"""The published notebook's training and generation loops, as faithfully as they can be run.

Anyscale's "Fine-tuning Stable Diffusion" (2023): `load_models`, `get_target`,
`prior_preserving_loss`, the loop of `train_fn` and `StableDiffusionCallable`, kept with what is
wrong with them: all weights bfloat16, so that AdamW rounds most small updates away; clipping over
parameter generators that the optimizer has already consumed, so that it clips nothing; the VAE run
in every step; one picture a pipeline call. Ray's wrapping and data loading are left out, which
only flatters it: it is given its batches ready-made.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class NotebookConfig:
    """The notebook's `train_loop_config`; the batch counts pairs."""

    model_dir: Path
    instance_prompt: str
    class_prompt: str
    lr: float = 5e-6
    max_train_steps: int = 400
    train_batch_size: int = 2
    prior_loss_weight: float = 1.0
    max_grad_norm: float = 1.0


def get_target(
    scheduler: DDPMScheduler, noise: Tensor, latents: Tensor, timesteps: Tensor
) -> Tensor:
    """Noise or velocity, as in the notebook's utils."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(latents, noise, timesteps)
        return velocity
    raise ValueError(f"Unknown prediction type {kind}")


def prior_preserving_loss(model_pred: Tensor, target: Tensor, weight: float) -> Tensor:
    """Instance loss plus weighted prior loss, as in the notebook's utils."""
    model_pred, model_pred_prior = torch.chunk(model_pred, 2, dim=0)
    target, target_prior = torch.chunk(target, 2, dim=0)
    loss = F.mse_loss(model_pred.float(), target.float(), reduction="mean")
    prior_loss = F.mse_loss(model_pred_prior.float(), target_prior.float(), reduction="mean")
    return loss + weight * prior_loss


def train(
    config: NotebookConfig, batches: Iterator[tuple[Tensor, Tensor]], device: torch.device
) -> StableDiffusionPipeline:
    """The notebook's `train_fn`.

    Args:
        config: Its settings.
        batches: Instance and class pictures of each step, `[B, 3, H, W]` in [-1, 1] each.
        device: Where to train.

    Returns:
        The tuned pipeline.
    """
    dtype = torch.bfloat16
    root = config.model_dir
    text_encoder = CLIPTextModel.from_pretrained(root, subfolder="text_encoder", dtype=dtype)
    tokenizer = CLIPTokenizer.from_pretrained(root, subfolder="tokenizer")
    noise_scheduler = DDPMScheduler.from_pretrained(root, subfolder="scheduler")
    vae = AutoencoderKL.from_pretrained(root, subfolder="vae", torch_dtype=dtype)
    unet = UNet2DConditionModel.from_pretrained(root, subfolder="unet", torch_dtype=dtype)
    vae.requires_grad_(False)
    for part in (text_encoder, vae, unet):
        part.to(device)
    unet.train()
    text_encoder.train()
    unet_trainable, text_trainable = unet.parameters(), text_encoder.parameters()
    optimizer = torch.optim.AdamW(itertools.chain(unet_trainable, text_trainable), lr=config.lr)
    prompt_ids = _prompt_ids(tokenizer, text_encoder, config).to(device)
    for _ in range(config.max_train_steps):
        instance, prior = next(batches)
        images = torch.cat([instance, prior]).to(device, dtype)
        optimizer.zero_grad()
        latents = vae.encode(images).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(
            0, noise_scheduler.config.num_train_timesteps, (len(latents),), device=device
        ).long()
        noisy_latents = noise_scheduler.add_noise(latents, noise, timesteps)
        encoder_hidden_states = text_encoder(prompt_ids)[0]
        model_pred = unet(noisy_latents, timesteps, encoder_hidden_states).sample
        target = get_target(noise_scheduler, noise, latents, timesteps)
        loss = prior_preserving_loss(model_pred, target, config.prior_loss_weight)
        loss.backward()
        # The generators are empty by now: this clips nothing, there as here.
        clip_grad_norm_(itertools.chain(unet_trainable, text_trainable), config.max_grad_norm)
        optimizer.step()
        loss.detach().item()
    return StableDiffusionPipeline.from_pretrained(
        root, unet=unet, text_encoder=text_encoder, torch_dtype=dtype, safety_checker=None
    )


def generate(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> list[Image.Image]:
    """`StableDiffusionCallable`: one picture a call, the pipeline's own sampler and settings."""
    return [pipeline(prompt).images[0] for prompt in prompts]


def _prompt_ids(
    tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, config: NotebookConfig
) -> Tensor:
    prompts = [config.instance_prompt] * config.train_batch_size
    prompts += [config.class_prompt] * config.train_batch_size
    ids: Tensor = tokenizer(
        prompts,
        padding="max_length",
        truncation=True,
        max_length=text_encoder.config.max_position_embeddings,
        return_tensors="pt",
    ).input_ids
    return ids
