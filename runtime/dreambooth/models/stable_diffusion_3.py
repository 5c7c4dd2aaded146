"""Stable Diffusion 3 and 3.5: a transformer that learned a rectified flow.

Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, Esser et al. 2024
(arXiv 2403.03206).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor
from torch.nn.functional import pad
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from dreambooth.models.conditioning import Conditioning
from dreambooth.models.inventory import INDEX
from dreambooth.models.latent import LatentModel, clip_features, clip_ids
from dreambooth.models.loading import load_clip_tokenizers, load_networks, move, reading
from dreambooth.models.noise import FlowProcess
from dreambooth.workspace.atomic import read_json

# Tokens of the T5, as diffusers' pipeline takes them.
T5_LENGTH = 256


class StableDiffusion3(LatentModel):
    """A loaded Stable Diffusion 3; see `ModelFamily` for the interface.

    The transformer is told the embeddings of two CLIP text encoders and, where the folder has one,
    of a T5, which is never trained. Without a T5 its embeddings are zeros: the model was trained to
    do without.
    """

    DENOISER = "transformer"
    LORA_TARGETS = (
        "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
        "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
    )  # fmt: skip

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModelWithProjection,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
        scheduler_config: dict[str, Any],
        t5: tuple[T5EncoderModel, T5TokenizerFast] | None = None,
    ) -> None:
        encoders = [text_encoder, text_encoder_2]
        super().__init__(
            transformer, vae, encoders, scheduler_config, FlowProcess(scheduler_config)
        )
        self.tokenizer, self._tokenizer_2 = tokenizers
        self._t5: T5EncoderModel | None = t5[0] if t5 else None
        self._t5_tokenizer: T5TokenizerFast | None = t5[1] if t5 else None
        self._t5_width = int(transformer.config.joint_attention_dim)
        if self._t5 is not None:
            self._t5.requires_grad_(False).eval()

    @classmethod
    def load(
        cls, folder: Path, dtype: torch.dtype | None = torch.float32, *, weights: bool = True
    ) -> "StableDiffusion3":
        """Loads a folder of this family; see `load_model` for arguments and errors."""
        with reading(folder, "Stable Diffusion 3"):
            tokenizers = load_clip_tokenizers(folder)
            networks = load_networks(
                folder,
                {
                    "text_encoder": CLIPTextModelWithProjection,
                    "text_encoder_2": CLIPTextModelWithProjection,
                    "transformer": SD3Transformer2DModel,
                    "vae": AutoencoderKL,
                },
                dtype,
                weights=weights,
            )
            scheduler = FlowMatchEulerDiscreteScheduler.load_config(
                folder / "scheduler", local_files_only=True
            )
            return cls(
                **networks,
                tokenizers=tokenizers,
                scheduler_config=dict(scheduler),
                t5=_load_t5(folder, weights),
            )

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """Moves all parts to `device`, and the networks to `dtype` if given.

        The T5 is only ever made smaller: it is nine tenths of the text encoders, and what its files
        hold is as good as it gets.
        """
        if self._t5 is not None:
            whole = self._t5.dtype == torch.float32 and device.type != "cpu"
            move(self._t5, device, torch.bfloat16 if whole and dtype else None)
        return super().to(device, dtype)

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Token ids `[B, L_i]` int64 for the two CLIP encoders and, if there is one, the T5."""
        first, second = self.text_encoders
        ids = (
            clip_ids(self.tokenizer, prompts, first),
            clip_ids(self._tokenizer_2, prompts, second),
        )
        if self._t5_tokenizer is None:
            return ids
        tokenized = self._t5_tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=T5_LENGTH,
            return_tensors="pt",
        )
        return (*ids, tokenized.input_ids)

    def encode_prompt(self, token_ids: tuple[Tensor, ...]) -> Conditioning:
        """The CLIP encoders' hidden states side by side, then the T5's; both pooled embeddings."""
        first, first_pooled = clip_features(self.text_encoders[0], token_ids[0])
        second, second_pooled = clip_features(self.text_encoders[1], token_ids[1])
        clip = torch.cat([first, second], dim=-1)
        clip = pad(clip, (0, self._t5_width - clip.shape[-1]))
        return Conditioning(
            torch.cat([clip, self._t5_features(token_ids[2:], clip)], dim=1),
            torch.cat([first_pooled, second_pooled], dim=-1),
        )

    def _t5_features(self, token_ids: tuple[Tensor, ...], like: Tensor) -> Tensor:
        """`[B, 256, D]`, on the device and of the type of `like`."""
        if self._t5 is None:
            return like.new_zeros(len(like), T5_LENGTH, self._t5_width)
        with torch.no_grad():
            hidden: Tensor = self._t5(token_ids[0])[0]
        return hidden.to(like.dtype)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The velocity `[B, C, H/f, W/f]`."""
        output: Tensor = self.denoiser(
            hidden_states=noisy,
            timestep=timesteps,
            encoder_hidden_states=conditioning.tokens,
            pooled_projections=conditioning.pooled,
            return_dict=False,
        )[0]
        return output

    def _pipeline(self) -> StableDiffusion3Pipeline:
        return StableDiffusion3Pipeline(
            transformer=self.denoiser,
            scheduler=FlowMatchEulerDiscreteScheduler.from_config(self.scheduler_config),
            vae=self.autoencoder,
            text_encoder=self.text_encoders[0],
            tokenizer=self.tokenizer,
            text_encoder_2=self.text_encoders[1],
            tokenizer_2=self._tokenizer_2,
            text_encoder_3=self._t5,
            tokenizer_3=self._t5_tokenizer,
        )


def _load_t5(folder: Path, weights: bool) -> tuple[T5EncoderModel, T5TokenizerFast] | None:
    index = read_json(folder / INDEX) or {}
    if not any(index.get("text_encoder_3") or ()):
        return None
    tokenizer = T5TokenizerFast.from_pretrained(folder / "tokenizer_3", local_files_only=True)
    networks = load_networks(folder, {"text_encoder_3": T5EncoderModel}, None, weights=weights)
    return networks["text_encoder_3"], tokenizer
