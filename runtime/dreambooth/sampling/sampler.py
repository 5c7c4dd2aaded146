"""Batched sampling with classifier-free guidance (Ho and Salimans, arXiv 2207.12598)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreambooth.models.conditioning import Conditioning
from dreambooth.models.family import ModelFamily
from dreambooth.models.schedulers import make_scheduler
from dreambooth.sampling.devices import training_dtype
from dreambooth.sampling.settings import SamplingSettings


class Sampler:
    """Makes pictures with one model on one device.

    Prompts are encoded once each; the conditional and unconditional halves of guidance share one
    batch. The initial noise of a picture is drawn on the CPU from its own seed, so that it is the
    same on every device.
    """

    def __init__(self, model: ModelFamily, device: torch.device, *, autocast: bool = False) -> None:
        """`autocast` computes as training does, in float32 weights: for a model under training."""
        self._model = model
        self._device = device
        self._dtype = training_dtype(device) if autocast else torch.float32
        self._encoded: dict[str, Conditioning] = {}

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: SamplingSettings
    ) -> NDArray[np.uint8]:
        """Pictures for `prompts` from the noise of `seeds`, equally many.

        Returns:
            `[B, H, W, 3]` RGB.
        """
        autocast = self._dtype != torch.float32
        with torch.autocast(self._device.type, self._dtype, enabled=autocast):
            latents = self._denoise(prompts, seeds, settings)
        return _to_uint8(self._model.decode(latents))

    def _denoise(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: SamplingSettings
    ) -> Tensor:
        """Scaled latents `[B, C, H/f, W/f]` float32 without noise."""
        model = self._model
        scheduler = make_scheduler(settings.scheduler, model.scheduler_config)
        scheduler.set_timesteps(settings.steps, device=self._device)
        latents = self._noise(seeds) * scheduler.init_noise_sigma
        conditioning = self._encode(prompts)
        guided = settings.guidance > 1.0
        if guided:
            negative = [settings.negative_prompt or ""] * len(prompts)
            conditioning = Conditioning.cat([self._encode(negative), conditioning])
        for timestep in scheduler.timesteps:
            doubled = torch.cat([latents, latents]) if guided else latents
            doubled = scheduler.scale_model_input(doubled, timestep)
            times = timestep.expand(len(doubled))
            output = model.predict(doubled.to(conditioning.dtype), times, conditioning).float()
            if guided:
                unconditional, conditional = output.chunk(2)
                output = unconditional + settings.guidance * (conditional - unconditional)
            latents = scheduler.step(output, timestep, latents, return_dict=False)[0].float()
        denoised: Tensor = latents
        return denoised

    def forget_prompts(self) -> None:
        """Drops encoded prompts; needed when the text encoder's weights have changed."""
        self._encoded.clear()

    def _noise(self, seeds: Sequence[int]) -> Tensor:
        shape = self._model.latent_shape
        draws = [torch.randn(shape, generator=_generator(seed)) for seed in seeds]
        return torch.stack(draws).to(self._device)

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        for prompt in prompts:
            if prompt not in self._encoded:
                ids = tuple(ids.to(self._device) for ids in self._model.tokenize([prompt]))
                self._encoded[prompt] = self._model.encode_prompt(ids)
        return Conditioning.cat([self._encoded[prompt] for prompt in prompts])


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def _to_uint8(pixels: Tensor) -> NDArray[np.uint8]:
    scaled = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array: NDArray[np.uint8] = scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array
