"""A model made ready to draw on the device of this process."""

from pathlib import Path

import torch
from torch import Tensor

from dreambooth.kernels.availability import check_available
from dreambooth.kernels.fusing import fuse
from dreambooth.kernels.rehearsal import SHAPES, rehearse
from dreambooth.models.conditioning import Conditioning
from dreambooth.models.family import ModelFamily
from dreambooth.models.load import load_model
from dreambooth.models.safety import SafetyChecker
from dreambooth.models.shapes import shapes_of
from dreambooth.sampling.batches import (
    MOST_DECODED,
    Batches,
    FittingBatches,
    FixedBatches,
    capacity,
    free_memory,
)
from dreambooth.sampling.decoding import Checker, Decoder, StreamDecoder
from dreambooth.sampling.denoising import EagerDenoiser, GraphedDenoiser
from dreambooth.sampling.devices import sampling_dtype
from dreambooth.sampling.sampler import Sampler
from dreambooth.sampling.settings import BATCH_SIZE, SamplingSettings
from dreambooth.sampling.studio import Machine
from dreambooth.spans import Activity, span


def load_machine(
    folder: str, lora: str | None, device: torch.device, checker: str | None = None
) -> Machine:
    """The diffusers folder `folder` with the LoRA weights of `lora` merged in, on `device`.

    Pictures are checked by the safety checker in the diffusers folder `checker`.

    Raises:
        UserError: If the model or the checker cannot be loaded.
    """
    # Adapters are merged on the CPU, in float32.
    as_stored = device.type == "cuda" and lora is None
    model = load_model(Path(folder), None if as_stored else torch.float32)
    if lora is not None:
        model.load_lora(Path(lora))
    model = model.to(device, sampling_dtype(device))
    checks = None if checker is None else SafetyChecker.load(Path(checker), device)
    if device.type == "cuda":
        return GpuMachine(model, device, checks, Path(folder))
    return CpuMachine(model, checks)


class CpuMachine:
    """Draws in batches of one size, bit for bit the same whatever they hold."""

    def __init__(self, model: ModelFamily, checker: Checker | None = None) -> None:
        """Takes the model over: its parts get the format that a CPU is fastest with."""
        device = torch.device("cpu")
        # Group norm in bfloat16 takes seven times as long in the channels-last format, which eats
        # up what the UNet's convolutions gain. The decoder is little else than convolutions.
        model.denoiser.to(memory_format=torch.contiguous_format)
        model.autoencoder.to(sampling_dtype(device))
        model.autoencoder.to(memory_format=torch.channels_last)
        self.sampler = Sampler(model, device, decoder=Decoder(model, checker))

    def batches(self, settings: SamplingSettings) -> Batches:
        """Of `BATCH_SIZE`."""
        return FixedBatches(BATCH_SIZE)

    def release(self) -> None:
        """It holds nothing else."""


class GpuMachine:
    """Draws in batches that fill the GPU or its memory, from graphs where they can be recorded."""

    def __init__(
        self,
        model: ModelFamily,
        device: torch.device,
        checker: Checker | None = None,
        folder: Path | None = None,
    ) -> None:
        """Takes the model over, which is on `device`: its modules get this project's kernels.

        With its diffusers `folder`, they are compiled together before the first batch.
        """
        self._model = _fused(model)
        self._device = device
        self._folder = folder
        self._graphed = GraphedDenoiser(EagerDenoiser(model), self._rehearse)
        self._largest: dict[int, int] = {}
        self._sizes: dict[int, set[int]] = {}
        self._decoder = StreamDecoder(model, device, MOST_DECODED, checker)
        self.sampler = Sampler(model, device, denoiser=self._graphed, decoder=self._decoder)

    def batches(self, settings: SamplingSettings) -> Batches:
        """As its memory allows."""
        rows_a_picture = 2 if settings.guidance > 1.0 else 1
        if rows_a_picture not in self._largest:
            self.release()
            _, height, width = self._model.latent_shape
            fits = capacity(
                free_memory(self._device),
                rows_a_picture,
                height * width,
                self._model.resolution**2,
            )
            self._largest[rows_a_picture] = fits.batch
            self._decoder.together = fits.decoded
        known = self._sizes.setdefault(rows_a_picture, set())
        return FittingBatches(self._largest[rows_a_picture], known)

    def _rehearse(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> None:
        """Compiles what a batch like this one launches."""
        if self._folder is None or check_available(self._device) is not None:
            return
        folder, together = self._folder, min(self._decoder.together, len(latents))
        shapes = f"{len(latents)} {conditioning.tokens.shape} {together} {shapes_of(folder)}"
        with span(Activity.COMPILE):
            rehearse(
                f"drawing {shapes}",
                lambda: draw_shapes(folder, latents, timestep, conditioning, together),
            )

    def release(self) -> None:
        """Drops the graphs and hands unused memory back."""
        self._graphed.release()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()


@torch.no_grad()
def draw_shapes(
    folder: Path, latents: Tensor, timestep: Tensor, conditioning: Conditioning, together: int
) -> None:
    """Goes through a call of the denoiser and the decoding of `together` pictures on `SHAPES`."""
    model = load_model(folder, weights=False)
    _fused(model.to(SHAPES, conditioning.dtype))
    latents = latents.to(SHAPES)
    EagerDenoiser(model)(latents, timestep.to(SHAPES), conditioning.to(SHAPES), 1.0)
    model.decode(latents[:together])


def _fused(model: ModelFamily) -> ModelFamily:
    """The model with this project's kernels in what draws."""
    for part in (model.denoiser, model.autoencoder):
        part.to(memory_format=torch.channels_last)
        fuse(part)
    return model
