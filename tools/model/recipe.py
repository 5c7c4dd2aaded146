"""The steps of the recipe, each with its result in one folder of state."""

import hashlib
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tools.model import autoencoder, denoiser, latents
from tools.model.composition import Composer
from tools.model.dataset import Dataset
from tools.model.device import Wrap, as_it_is
from tools.model.errors import RecipeError
from tools.model.export import export_pipeline
from tools.model.fitting import Fit
from tools.model.networks import Widths
from tools.model.pace import Endless, Pace
from tools.model.samples import VARIANTS, make_samples
from tools.model.scenes import scene_bank
from tools.model.tokenizer import encode_captions, load_tokenizer

LOG = logging.getLogger(__name__)


class Recipe:
    """Makes the model out of the data set, step by step.

    A step whose result is there is skipped; one that was cut short goes on at its checkpoint.

    Args:
        data: What `python -m tools.model pictures` made.
        state: Samples, checkpoints, latents.
    """

    widths = Widths()

    def __init__(self, data: Path, state: Path, device: torch.device, seed: int = 0) -> None:
        self._data = data
        self._state = state
        self._device = device
        self._seed = seed

    def make_samples(self, count: int) -> None:
        """Chooses how pictures are shown and called, and writes it down.

        Raises:
            RecipeError: If the folder has others.
        """
        identity = f"data {self._dataset.digest()[:12]}/{count} samples/seed {self._seed}"
        if self._samples_file.exists():
            found = str(self._samples["identity"])
            if found != identity:
                raise RecipeError(
                    f"{self._samples_file} has other samples: {found}, not {identity}. "
                    "Use another folder, or delete this one."
                )
            return
        columns, captions = make_samples(self._dataset.records, count, self._seed)
        tokens = encode_captions(load_tokenizer(self._data / "tokenizer"), captions)
        self._state.mkdir(parents=True, exist_ok=True)
        unfinished = self._state / "samples.part.npz"
        content = {**columns, "tokens": tokens, "identity": np.array(identity)}
        np.savez(unfinished, allow_pickle=False, **content)
        unfinished.replace(self._samples_file)
        LOG.info("samples: %d, such as %s", count, "; ".join(text for text, *_ in captions[:4]))

    def train_autoencoder(
        self,
        pace: Pace,
        pause: Pace | None = None,
        wrap: Wrap = as_it_is,
        batch: int = autoencoder.BATCH,
    ) -> bool:
        """Trains it and normalises its latents; False if `pause` came first."""
        if self._autoencoder_folder.exists():
            return True
        network = autoencoder.new(self.widths, self._seed)
        task = autoencoder.task(network, self._composer, wrap, self._identity, batch)
        fit = Fit(task, self._device, self._state / "autoencoder.pt", self._seed)
        if not fit.run(pace, pause or Endless()):
            return False
        autoencoder.normalise(network, self._composer)
        autoencoder.save(network, self._autoencoder_folder)
        return True

    def encode(self) -> None:
        """Makes the latents of all samples."""
        path = self._latents_file
        if not path.exists():
            network = autoencoder.load(self._autoencoder_folder, self._device)
            latents.write_latents(network, self._composer, path, self._seed)
            # Pixels are not needed any more.
            del self._composer

    def train_denoiser(
        self,
        pace: Pace,
        pause: Pace | None = None,
        wrap: Wrap = as_it_is,
        batch: int = denoiser.BATCH,
    ) -> bool:
        """Trains UNet and text encoder; False if `pause` came first."""
        fit, _ = self._denoiser(wrap, batch)
        return fit.run(pace, pause or Endless())

    def export(self, target: Path, batch: int = denoiser.BATCH) -> None:
        """Writes the model as it is at the denoiser's checkpoint, for diffusers."""
        if not self._denoiser_checkpoint.exists():
            raise RecipeError(f"{self._state} has no trained denoiser: run train-unet first.")
        fit, (unet, text_encoder) = self._denoiser(as_it_is, batch)
        fit.use_average()
        export_pipeline(
            target,
            vae=autoencoder.load(self._autoencoder_folder, self._device),
            unet=unet,
            text_encoder=text_encoder,
            tokenizer=load_tokenizer(self._data / "tokenizer"),
        )

    def _denoiser(self, wrap: Wrap, batch: int) -> tuple[Fit, tuple[Any, Any]]:
        path = self._latents_file
        if not path.exists():
            raise RecipeError(f"{path} doesn't exist: run encode first.")
        tokenizer = load_tokenizer(self._data / "tokenizer")
        networks = denoiser.new(self.widths, tokenizer, self._seed)
        task = denoiser.task(
            networks,
            latents.read_latents(path, self._device),
            torch.from_numpy(self._samples["tokens"]).to(self._device),
            denoiser.empty_caption(tokenizer, self._device),
            wrap,
            path.stem,
            batch,
        )
        return Fit(task, self._device, self._denoiser_checkpoint, self._seed), networks

    @property
    def _autoencoder_folder(self) -> Path:
        return self._state / "vae"

    @property
    def _denoiser_checkpoint(self) -> Path:
        return self._state / "denoiser.pt"

    @property
    def _samples_file(self) -> Path:
        return self._state / "samples.npz"

    @property
    def _latents_file(self) -> Path:
        """Named after what the latents depend on."""
        weights = self._autoencoder_folder / "diffusion_pytorch_model.safetensors"
        if not weights.exists():
            raise RecipeError(f"{self._state} has no trained autoencoder: finish train-vae first.")
        whole = hashlib.sha256(weights.read_bytes() + self._identity.encode())
        return self._state / f"latents-{whole.hexdigest()[:12]}.npy"

    @property
    def _identity(self) -> str:
        return str(self._samples["identity"])

    @cached_property
    def _dataset(self) -> Dataset:
        return Dataset.read(self._data)

    @cached_property
    def _samples(self) -> dict[str, NDArray[Any]]:
        if not self._samples_file.exists():
            raise RecipeError(f"{self._samples_file} doesn't exist: run samples first.")
        with np.load(self._samples_file) as content:
            return dict(content)

    @cached_property
    def _composer(self) -> Composer:
        columns = {n: c for n, c in self._samples.items() if n not in ("identity", "tokens")}
        return Composer.on(self._device, self._dataset.pixels(), scene_bank(VARIANTS), columns)
