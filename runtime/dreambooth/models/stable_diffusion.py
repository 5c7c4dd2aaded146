"""Stable Diffusion 1.x and 2.x, and everything shaped like them (the built-in model is).

High-Resolution Image Synthesis with Latent Diffusion Models, Rombach et al. (arXiv 2112.10752).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from dreambooth.models.conditioning import Conditioning
from dreambooth.models.latent import LatentModel, clip_ids
from dreambooth.models.loading import load_networks, reading
from dreambooth.models.noise import DiffusionProcess
from dreambooth.models.schedulers import make_scheduler


class StableDiffusion(LatentModel):
    """A loaded Stable-Diffusion-shaped model; see `ModelFamily` for the interface."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler_config: dict[str, Any],
    ) -> None:
        process = DiffusionProcess(scheduler_config)
        super().__init__(unet, vae, [text_encoder], scheduler_config, process)
        self.tokenizer = tokenizer

    @classmethod
    def load(
        cls, folder: Path, dtype: torch.dtype | None = torch.float32, *, weights: bool = True
    ) -> "StableDiffusion":
        """Loads a folder of this family; see `load_model` for arguments and errors."""
        with reading(folder, "Stable Diffusion"):
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            networks = load_networks(
                folder,
                {
                    "text_encoder": CLIPTextModel,
                    "unet": UNet2DConditionModel,
                    "vae": AutoencoderKL,
                },
                dtype,
                weights=weights,
            )
            scheduler = DDPMScheduler.load_config(folder / "scheduler", local_files_only=True)
            return cls(**networks, tokenizer=tokenizer, scheduler_config=dict(scheduler))

    @property
    def unet(self) -> Any:
        """The denoiser."""
        return self.denoiser

    @property
    def vae(self) -> Any:
        """The autoencoder."""
        return self.autoencoder

    @property
    def text_encoder(self) -> nn.Module:
        """The CLIP text encoder."""
        return self.text_encoders[0]

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Token ids, one `[B, L]` int64."""
        return (clip_ids(self.tokenizer, prompts, self.text_encoder),)

    def encode_prompt(self, token_ids: tuple[Tensor, ...]) -> Conditioning:
        """The last hidden states, `[B, L, D]`."""
        return Conditioning(self.text_encoder(input_ids=token_ids[0])[0])

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output `[B, C, H/f, W/f]`."""
        output: Tensor = self.denoiser(noisy, timesteps, conditioning.tokens, return_dict=False)[0]
        return output

    def _pipeline(self) -> StableDiffusionPipeline:
        return StableDiffusionPipeline(
            vae=self.autoencoder,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.denoiser,
            scheduler=make_scheduler(None, self.scheduler_config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
