"""Batched sampling with classifier-free guidance (Ho and Salimans, arXiv 2207.12598)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreambooth.models.conditioning import Conditioning
from dreambooth.models.family import ModelFamily
from dreambooth.models.schedulers import make_scheduler
from dreambooth.sampling.decoding import Decoder, Developing, StreamDecoder
from dreambooth.sampling.denoising import Denoiser, EagerDenoiser
from dreambooth.sampling.devices import training_dtype
from dreambooth.sampling.settings import SamplingSettings


class Sampler:
    """Makes pictures with one model on one device.

    Prompts are encoded once each; the conditional and unconditional halves of guidance share one
    batch. The initial noise of a picture is drawn on the CPU from its own seed, so that it is the
    same on every device.

    Nothing waits for a GPU before the pictures are taken: schedulers keep their tables and
    timesteps in the host's memory, from where single numbers go along with the kernels. (UniPC of
    diffusers is the exception: it moves some to the device in every step.)
    """

    def __init__(
        self,
        model: ModelFamily,
        device: torch.device,
        *,
        autocast: bool = False,
        denoiser: Denoiser | None = None,
        decoder: Decoder | StreamDecoder | None = None,
    ) -> None:
        """`autocast` computes as training does, in float32 weights: for a model under training."""
        self._model = model
        self._device = device
        self._dtype = training_dtype(device) if autocast else torch.float32
        self._denoiser = denoiser or EagerDenoiser(model)
        self._decoder = decoder or Decoder(model)
        self._encoded: dict[str, Conditioning] = {}

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: SamplingSettings
    ) -> NDArray[np.uint8]:
        """Pictures for `prompts` from the noise of `seeds`, equally many.

        Returns:
            `[B, H, W, 3]` RGB.
        """
        return self.start(prompts, seeds, settings).take().pictures

    @torch.no_grad()
    def start(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: SamplingSettings
    ) -> Developing:
        """Begins to draw; a GPU goes on while the caller does something else.

        Raises:
            torch.cuda.OutOfMemoryError: If there is no room for so many together.
        """
        autocast = self._dtype != torch.float32
        with torch.autocast(self._device.type, self._dtype, enabled=autocast):
            latents = self._denoise(prompts, seeds, settings)
        return self._decoder.develop(latents)

    def _denoise(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: SamplingSettings
    ) -> Tensor:
        """Scaled latents `[B, C, H/f, W/f]` float32 without noise."""
        scheduler = make_scheduler(settings.scheduler, self._model.scheduler_config)
        scheduler.set_timesteps(settings.steps)
        on_device = self._send(scheduler.timesteps)
        latents = self._noise(seeds) * scheduler.init_noise_sigma
        conditioning = self._encode(prompts)
        if settings.guidance > 1.0:
            negative = [settings.negative_prompt or ""] * len(prompts)
            conditioning = Conditioning.cat([self._encode(negative), conditioning])
        for number, timestep in enumerate(scheduler.timesteps):
            output = self._denoiser(
                scheduler.scale_model_input(latents, timestep),
                on_device[number],
                conditioning,
                settings.guidance,
            )
            latents = scheduler.step(output, timestep, latents, return_dict=False)[0].float()
        denoised: Tensor = latents
        return denoised

    def forget_prompts(self) -> None:
        """Drops encoded prompts; needed when the text encoder's weights have changed."""
        self._encoded.clear()

    def _noise(self, seeds: Sequence[int]) -> Tensor:
        shape = self._model.latent_shape
        draws = [torch.randn(shape, generator=_generator(seed)) for seed in seeds]
        return self._send(torch.stack(draws))

    def _send(self, tensor: Tensor) -> Tensor:
        """`tensor` on the device, without waiting for what that is busy with."""
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        for prompt in prompts:
            if prompt not in self._encoded:
                ids = tuple(self._send(ids) for ids in self._model.tokenize([prompt]))
                self._encoded[prompt] = self._model.encode_prompt(ids)
        return Conditioning.cat([self._encoded[prompt] for prompt in prompts])


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)
