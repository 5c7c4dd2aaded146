"""A model made ready to draw on the device of this process."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from dreambooth.models.conditioning import Conditioning
from dreambooth.models.family import ModelFamily
from dreambooth.models.load import load_model
from dreambooth.sampling.batches import (
    MOST_DECODED,
    Batches,
    Capacity,
    FittingBatches,
    FixedBatches,
    MemoryUse,
    capacity,
    free_memory,
    peak_memory,
)
from dreambooth.sampling.decoding import StreamDecoder
from dreambooth.sampling.denoising import EagerDenoiser, GraphedDenoiser
from dreambooth.sampling.devices import sampling_dtype
from dreambooth.sampling.sampler import Sampler
from dreambooth.sampling.settings import BATCH_SIZE, SamplingSettings
from dreambooth.sampling.studio import Machine


def load_machine(folder: str, lora: str | None, device: torch.device) -> Machine:
    """The diffusers folder `folder` with the LoRA weights of `lora` merged in, on `device`.

    Raises:
        UserError: If the model cannot be loaded.
    """
    model = load_model(Path(folder))
    if lora is not None:
        model.load_lora(Path(lora))
    model = model.to(device, sampling_dtype(device))
    return GpuMachine(model, device) if device.type == "cuda" else CpuMachine(model)


class CpuMachine:
    """Draws in batches of one size, bit for bit the same whatever they hold."""

    def __init__(self, model: ModelFamily) -> None:
        """Takes the model over: its parts get the format that a CPU is fastest with."""
        device = torch.device("cpu")
        # Group norm in bfloat16 takes seven times as long in the channels-last format, which eats
        # up what the UNet's convolutions gain. The decoder is little else than convolutions.
        model.denoiser.to(memory_format=torch.contiguous_format)
        model.autoencoder.to(sampling_dtype(device))
        model.autoencoder.to(memory_format=torch.channels_last)
        self.sampler = Sampler(model, device)

    def batches(self, settings: SamplingSettings) -> Batches:
        """Of `BATCH_SIZE`."""
        return FixedBatches(BATCH_SIZE)

    def release(self) -> None:
        """It holds nothing else."""


class GpuMachine:
    """Draws in batches that fill the GPU or its memory, from graphs where they can be recorded."""

    def __init__(self, model: ModelFamily, device: torch.device) -> None:
        """Takes the model over, which is on `device`: its modules get this project's kernels."""
        from dreambooth.kernels.fusing import fuse

        for part in (model.denoiser, model.autoencoder):
            part.to(memory_format=torch.channels_last)
            fuse(part)
        self._model = model
        self._device = device
        self._eager = EagerDenoiser(model)
        self._graphed = GraphedDenoiser(self._eager)
        self._capacities: dict[bool, Capacity] = {}
        self._decoder = StreamDecoder(model, device, MOST_DECODED)
        self.sampler = Sampler(model, device, denoiser=self._graphed, decoder=self._decoder)

    def batches(self, settings: SamplingSettings) -> Batches:
        """What its memory takes, measured when it is first asked."""
        guided = settings.guidance > 1.0
        if guided not in self._capacities:
            self.release()
            self._capacities[guided] = self._measure(rows_a_picture=2 if guided else 1)
            self._decoder.together = self._capacities[guided].decoded
        return FittingBatches(self._capacities[guided].batch)

    def release(self) -> None:
        """Drops the graphs and hands unused memory back."""
        self._graphed.release()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()

    @torch.no_grad()
    def _measure(self, rows_a_picture: int) -> Capacity:
        """Draws a step of one picture and of two, decodes one and two, and looks what they took."""
        denoising = self._use(self._denoise_once, 2, 4)
        decoding = self._use(self._decode_once, 1, 2)
        _, height, width = self._model.latent_shape
        return capacity(
            free_memory(self._device), denoising, decoding, rows_a_picture, height * width
        )

    def _use(self, call: Callable[[int], object], few: int, more: int) -> MemoryUse:
        # The first call of a size also tries out kernels, which takes memory once.
        used = []
        for rows in (few, more):
            call(rows)
            used.append((rows, peak_memory(self._device, partial(call, rows))))
        return MemoryUse.between(used[0], used[1])

    def _denoise_once(self, rows: int) -> object:
        ids = tuple(ids.to(self._device) for ids in self._model.tokenize([""]))
        conditioning: Conditioning = self._model.encode_prompt(ids).repeat_interleave(rows)
        latents = torch.zeros((rows, *self._model.latent_shape), device=self._device)
        timestep = torch.zeros((), dtype=torch.int64, device=self._device)
        return self._eager(latents, timestep, conditioning, 1.0)

    def _decode_once(self, pictures: int) -> object:
        latents = torch.zeros((pictures, *self._model.latent_shape), device=self._device)
        return self._model.decode(latents)
