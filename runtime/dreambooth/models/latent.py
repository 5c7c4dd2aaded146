"""What the families share: a denoiser of latents between a VAE and CLIP text encoders.

A family adds how it reads prompts, what it tells the denoiser of them, and which diffusers pipeline
its files are.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from dreambooth.models.adapters import TEXT_TARGETS, add_adapters, lora_file_arguments
from dreambooth.models.family import LatentDistribution
from dreambooth.models.loading import move
from dreambooth.models.noise import NoiseProcess


class LatentModel:
    """A loaded model; see `ModelFamily` for the interface.

    Weights are float32 whatever the files hold: they are the masters of training.
    """

    # diffusers' name of the denoiser, in folders and in LoRA files.
    DENOISER: ClassVar[str] = "unet"
    # The denoiser's projections that adapters are added to.
    LORA_TARGETS: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    def __init__(
        self,
        denoiser: Any,
        autoencoder: Any,
        text_encoders: Sequence[nn.Module],
        scheduler_config: dict[str, Any],
        process: NoiseProcess,
    ) -> None:
        self.denoiser: nn.Module = denoiser
        self.autoencoder: nn.Module = autoencoder
        self.text_encoders = tuple(text_encoders)
        self.scheduler_config = scheduler_config
        self._process = process
        self._side = int(denoiser.config.sample_size)
        self._channels = int(denoiser.config.in_channels)
        self._vae = autoencoder.config
        autoencoder.requires_grad_(False)
        for part in (denoiser, autoencoder, *text_encoders):
            part.eval()

    @property
    def resolution(self) -> int:
        """Side of the pictures in pixels."""
        return self._side * int(2 ** (len(self._vae.block_out_channels) - 1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """`(C, H/f, W/f)`."""
        return (self._channels, self._side, self._side)

    @property
    def _scale(self) -> float:
        return float(self._vae.scaling_factor)

    @property
    def _shift(self) -> float:
        return float(self._vae.shift_factor or 0.0)

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """Moves all parts to `device`, and the networks to `dtype` if given.

        On the CPU the VAE stays float32: it runs once a picture, and bfloat16 shows as banding.
        """
        for part in (self.denoiser, *self.text_encoders):
            move(part, device, dtype)
            part.to(memory_format=torch.channels_last)
        wanted = None if device.type == "cpu" else self._autoencoder_dtype(dtype)
        move(self.autoencoder, device, wanted)
        self._process.to(device)
        return self

    def _autoencoder_dtype(self, dtype: torch.dtype | None) -> torch.dtype | None:
        """What the VAE computes in where the other networks compute in `dtype`.

        Half precision with the more digits: pictures show them, and it is as fast.
        """
        return torch.float16 if dtype == torch.bfloat16 else dtype

    def encode_image(self, pixels: Tensor) -> LatentDistribution:
        """Scaled latent mean and deviation of `pixels` `[B, 3, H, W]` in [-1, 1]."""
        vae: Any = self.autoencoder
        posterior = vae.encode(pixels.to(vae.dtype)).latent_dist
        return LatentDistribution(
            ((posterior.mean - self._shift) * self._scale).float(),
            (posterior.std * self._scale).float(),
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels `[B, 3, H, W]`, nominally in [-1, 1]."""
        vae: Any = self.autoencoder
        latents = latents.to(vae.dtype) / self._scale + self._shift
        pixels: Tensor = vae.decode(latents, return_dict=False)[0]
        return pixels

    def timesteps(self, times: Tensor) -> Tensor:
        """`[B]`, as the noise process spreads them."""
        return self._process.timesteps(times)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`latents` at `timesteps` `[B]` of the noise process."""
        return self._process.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser should say of them."""
        return self._process.target(latents, noise, timesteps)

    def unfreeze(self, *, text_encoder: bool) -> None:
        """Makes trainable what the denoiser and, with `text_encoder`, the text encoders use."""
        self.denoiser.requires_grad_(True)
        for encoder in self.text_encoders:
            encoder.requires_grad_(text_encoder)
        for module in self._unused():
            module.requires_grad_(False)

    def _unused(self) -> Iterable[nn.Module]:
        """Parts of the text encoders that nothing depends on; they never have gradients."""
        return ()

    def add_lora(self, rank: int, alpha: float, *, text_encoder: bool, seed: int) -> None:
        """Freezes everything and adds adapters, initialised from `seed`."""
        networks: list[tuple[nn.Module, Sequence[str]]] = [(self.denoiser, self.LORA_TARGETS)]
        self.denoiser.requires_grad_(False)
        for encoder in self.text_encoders:
            encoder.requires_grad_(False)
            if text_encoder:
                networks.append((encoder, self._text_targets(encoder)))
        add_adapters(networks, rank, alpha, seed)

    def _text_targets(self, encoder: nn.Module) -> Sequence[str]:
        """Names, or ends of names, of the projections that adapters are added to."""
        unused = {id(module) for part in self._unused() for module in part.modules()}
        used = [
            name
            for name, module in encoder.named_modules()
            if name.endswith(TEXT_TARGETS) and id(module) not in unused
        ]
        return used if unused else TEXT_TARGETS

    def load_lora(self, folder: Path) -> None:
        """Adds the adapters in `folder` and merges them into the weights."""
        pipeline = self._pipeline()
        pipeline.load_lora_weights(folder)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()

    def save(self, folder: Path, *, lora: bool) -> None:
        """Writes the diffusers pipeline, or with `lora` its adapters, to `folder`."""
        pipeline = self._pipeline()
        if not lora:
            for part in (pipeline.components[self.DENOISER], pipeline.vae):
                # Where it was loaded from means nothing to others, and must not change the bytes.
                part.register_to_config(_name_or_path="")
            pipeline.save_pretrained(folder, safe_serialization=True)
            return
        networks = {self.DENOISER: self.denoiser}
        for number, encoder in enumerate(self.text_encoders, start=1):
            networks["text_encoder" if number == 1 else f"text_encoder_{number}"] = encoder
        pipeline.save_lora_weights(folder, safe_serialization=True, **lora_file_arguments(networks))

    def _pipeline(self) -> Any:
        """The plain diffusers pipeline of these parts."""
        raise NotImplementedError


def clip_ids(tokenizer: Any, prompts: Sequence[str], encoder: nn.Module) -> Tensor:
    """Token ids `[B, L]` int64 of a CLIP tokenizer, as long as the encoder takes them."""
    config: Any = encoder.config
    ids: Tensor = tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=min(tokenizer.model_max_length, int(config.max_position_embeddings)),
        return_tensors="pt",
    ).input_ids
    return ids


def clip_features(encoder: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The last hidden states but one, `[B, L, D]`, and the first output.

    That is the projected embedding of the whole text, `[B, P]`, of a `CLIPTextModelWithProjection`.
    """
    output = encoder(input_ids=ids, output_hidden_states=True)
    return output.hidden_states[-2], output[0]
