"""What one writes with diffusers alone: its pipeline, and the loop of its DreamBooth example.

The loop is that of `examples/dreambooth/train_dreambooth.py` with `--with_prior_preservation` and
`--train_text_encoder`, without accelerate around it: one process, by default float32 as the script
does, or with autocast as accelerate's mixed precision does; the VAE and a text embedding for every
sample in every step, AdamW, clipping over both networks. Pictures come ready-made, which only
flatters it.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from dreambooth.sampling.settings import SamplingSettings


class Pipeline:
    """`StableDiffusionPipeline` with the sampler that the built-in model's defaults name."""

    def __init__(self, model_dir: Path, dtype: torch.dtype = torch.float32) -> None:
        self._pipeline = StableDiffusionPipeline.from_pretrained(
            model_dir, torch_dtype=dtype, safety_checker=None
        )
        self._pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
            self._pipeline.scheduler.config, algorithm_type="dpmsolver++", solver_order=2
        )
        self._pipeline.set_progress_bar_config(disable=True)

    def draw(self, prompts: Sequence[str], settings: SamplingSettings) -> NDArray[np.uint8]:
        """One call: a picture for each prompt, `[B, H, W, 3]`."""
        images = self._pipeline(
            list(prompts),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
        ).images
        return np.stack([np.asarray(image) for image in images])


class DreamBoothLoop:
    """The training script's parts and its step."""

    def __init__(
        self,
        model_dir: Path,
        prompts: tuple[str, str],
        pairs: int,
        learning_rate: float,
        device: torch.device | None = None,
        mixed: torch.dtype | None = None,
    ) -> None:
        """Loads the model.

        Args:
            model_dir: A diffusers folder.
            prompts: The subject's and the class's.
            pairs: The script's batch size.
            learning_rate: Constant.
            device: Where to train; the CPU when left out.
            mixed: The script's `--mixed_precision`; None is none.
        """
        self._device = device or torch.device("cpu")
        self._mixed = mixed
        self._text_encoder = CLIPTextModel.from_pretrained(model_dir, subfolder="text_encoder")
        self._vae = AutoencoderKL.from_pretrained(model_dir, subfolder="vae")
        self._unet = UNet2DConditionModel.from_pretrained(model_dir, subfolder="unet")
        for part in (self._text_encoder, self._vae, self._unet):
            part.to(self._device, torch.float32)
        if mixed is not None:
            # What is not trained is cast; the rest stays as it is, and autocast casts it.
            self._vae.to(mixed)
        self._noise_scheduler = DDPMScheduler.from_pretrained(model_dir, subfolder="scheduler")
        self._vae.requires_grad_(False)
        self._unet.train()
        self._text_encoder.train()
        self._optimizer = torch.optim.AdamW(
            itertools.chain(self._unet.parameters(), self._text_encoder.parameters()),
            lr=learning_rate,
        )
        tokenizer = CLIPTokenizer.from_pretrained(model_dir, subfolder="tokenizer")
        self._input_ids: Tensor = tokenizer(
            [prompts[0]] * pairs + [prompts[1]] * pairs,
            truncation=True,
            padding="max_length",
            max_length=self._text_encoder.config.max_position_embeddings,
            return_tensors="pt",
        ).input_ids.to(self._device)

    def train(self, batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> float:
        """`steps` optimizer steps on (photos, class pictures), `[B, 3, H, W]` in [-1, 1] each."""
        loss = 0.0
        for _ in range(steps):
            loss = self._step(torch.cat(next(batches)))
        return loss

    def _step(self, pixel_values: Tensor) -> float:
        pixel_values = pixel_values.to(self._device, self._vae.dtype)
        latents = self._vae.encode(pixel_values).latent_dist.sample()
        latents = latents * self._vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(
            0,
            self._noise_scheduler.config.num_train_timesteps,
            (len(latents),),
            device=self._device,
        ).long()
        noisy = self._noise_scheduler.add_noise(latents, noise, timesteps)
        with torch.autocast(self._device.type, self._mixed, enabled=self._mixed is not None):
            hidden_states = self._text_encoder(self._input_ids)[0]
            prediction = self._unet(noisy, timesteps, hidden_states, return_dict=False)[0]
        if self._noise_scheduler.config.prediction_type == "epsilon":
            target = noise
        else:
            target = self._noise_scheduler.get_velocity(latents, noise, timesteps)
        prediction, prior_prediction = torch.chunk(prediction, 2, dim=0)
        target, prior_target = torch.chunk(target, 2, dim=0)
        loss = F.mse_loss(prediction.float(), target.float(), reduction="mean")
        loss = loss + F.mse_loss(prior_prediction.float(), prior_target.float(), reduction="mean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(
            itertools.chain(self._unet.parameters(), self._text_encoder.parameters()), 1.0
        )
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach().item()
