"""SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis.

Podell et al. 2023 (arXiv 2307.01952).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from dreambooth.models.conditioning import Conditioning
from dreambooth.models.inventory import INDEX
from dreambooth.models.latent import LatentModel, clip_features, clip_ids
from dreambooth.models.loading import load_clip_tokenizers, load_networks, reading
from dreambooth.models.noise import DiffusionProcess
from dreambooth.models.schedulers import make_scheduler
from dreambooth.workspace.atomic import read_json


class StableDiffusionXL(LatentModel):
    """A loaded SDXL model; see `ModelFamily` for the interface.

    The UNet is told the embeddings of two text encoders, the second one's pooled embedding, and
    the picture's size before it was prepared, where it was cut, and its size now. Photos are
    prepared to be whole pictures of the model's resolution, so that is what it is told.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
        scheduler_config: dict[str, Any],
        *,
        zeros_for_empty: bool = True,
    ) -> None:
        """`zeros_for_empty`: an empty text is all zeros, as this model was trained."""
        encoders = [text_encoder, text_encoder_2]
        super().__init__(unet, vae, encoders, scheduler_config, DiffusionProcess(scheduler_config))
        self.tokenizer, self._tokenizer_2 = tokenizers
        self._zeros_for_empty = zeros_for_empty
        size = float(self.resolution)
        # Original height and width, top and left of the cut, target height and width.
        self._sizes = torch.tensor([size, size, 0.0, 0.0, size, size])

    @classmethod
    def load(
        cls, folder: Path, dtype: torch.dtype | None = torch.float32, *, weights: bool = True
    ) -> "StableDiffusionXL":
        """Loads a folder of this family; see `load_model` for arguments and errors."""
        with reading(folder, "SDXL"):
            tokenizers = load_clip_tokenizers(folder)
            networks = load_networks(
                folder,
                {
                    "text_encoder": CLIPTextModel,
                    "text_encoder_2": CLIPTextModelWithProjection,
                    "unet": UNet2DConditionModel,
                    "vae": AutoencoderKL,
                },
                dtype,
                weights=weights,
            )
            scheduler = DDPMScheduler.load_config(folder / "scheduler", local_files_only=True)
            index = read_json(folder / INDEX) or {}
            return cls(
                **networks,
                tokenizers=tokenizers,
                scheduler_config=dict(scheduler),
                zeros_for_empty=bool(index.get("force_zeros_for_empty_prompt", True)),
            )

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """Moves all parts to `device`, and the networks to `dtype` if given."""
        self._sizes = self._sizes.to(device)
        return super().to(device, dtype)

    def _autoencoder_dtype(self, dtype: torch.dtype | None) -> torch.dtype | None:
        """float32 where half precision would overflow, as it does in the VAE that SDXL came with.

        Its convolutions use tensor cores all the same: cuDNN computes float32 in TF32.
        """
        if dtype is not None and self._vae.force_upcast:
            return torch.float32
        return super()._autoencoder_dtype(dtype)

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Token ids `[B, L]` int64 for each of the two text encoders."""
        first, second = self.text_encoders
        return (
            clip_ids(self.tokenizer, prompts, first),
            clip_ids(self._tokenizer_2, prompts, second),
        )

    def encode_prompt(self, token_ids: tuple[Tensor, ...]) -> Conditioning:
        """Both encoders' last hidden states but one, and the second's pooled embedding."""
        first, _ = clip_features(self.text_encoders[0], token_ids[0])
        second, pooled = clip_features(self.text_encoders[1], token_ids[1])
        tokens = torch.cat([first, second], dim=-1)
        if self._zeros_for_empty:
            # A text without words ends where it begins.
            empty = token_ids[0][:, 1] == self.tokenizer.eos_token_id
            tokens = tokens.masked_fill(empty[:, None, None], 0.0)
            pooled = pooled.masked_fill(empty[:, None], 0.0)
        return Conditioning(tokens, pooled)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output `[B, C, H/f, W/f]`."""
        output: Tensor = self.denoiser(
            noisy,
            timesteps,
            conditioning.tokens,
            added_cond_kwargs={
                "text_embeds": conditioning.pooled,
                "time_ids": self._sizes.expand(len(noisy), -1),
            },
            return_dict=False,
        )[0]
        return output

    def _unused(self) -> Iterable[nn.Module]:
        """The first text encoder's last layer: only what enters it is used."""
        encoder: Any = self.text_encoders[0]
        text: Any = getattr(encoder, "text_model", encoder)
        return (text.encoder.layers[-1], text.final_layer_norm)

    def _pipeline(self) -> StableDiffusionXLPipeline:
        return StableDiffusionXLPipeline(
            vae=self.autoencoder,
            text_encoder=self.text_encoders[0],
            text_encoder_2=self.text_encoders[1],
            tokenizer=self.tokenizer,
            tokenizer_2=self._tokenizer_2,
            unet=self.denoiser,
            scheduler=make_scheduler(None, self.scheduler_config),
            force_zeros_for_empty_prompt=self._zeros_for_empty,
            add_watermarker=False,
        )
