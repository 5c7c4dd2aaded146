"""Stable Diffusion 1.x and 2.x, and everything shaped like them (the built-in model is).

High-Resolution Image Synthesis with Latent Diffusion Models, Rombach et al. (arXiv 2112.10752).
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from dreambooth.errors import UserError
from dreambooth.models.conditioning import Conditioning
from dreambooth.models.family import LatentDistribution
from dreambooth.models.noise import DiffusionProcess
from dreambooth.models.schedulers import make_scheduler

# The projections that diffusers' own DreamBooth LoRA trainer adapts.
LORA_UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
LORA_TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


class StableDiffusion:
    """A loaded Stable-Diffusion-shaped model; see `ModelFamily` for the interface.

    Weights are loaded as float32 whatever the file holds: they are the masters of training.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler_config: dict[str, Any],
    ) -> None:
        self.unet = unet
        self.vae = vae
        self.text_encoder: nn.Module = text_encoder
        self.tokenizer = tokenizer
        self._text_length = int(text_encoder.config.max_position_embeddings)
        self.scheduler_config = scheduler_config
        self._process = DiffusionProcess(scheduler_config)
        vae.requires_grad_(False)
        for part in (unet, vae, text_encoder):
            part.eval()

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> "StableDiffusion":
        """Loads a diffusers folder from the disk alone; safetensors only.

        Raises:
            UserError: If a part is missing or not what its configuration says.
        """
        _quiet()
        try:
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            parts = {}
            for name, loader in (
                ("text_encoder", CLIPTextModel),
                ("unet", UNet2DConditionModel),
                ("vae", AutoencoderKL),
            ):
                key = "dtype" if name == "text_encoder" else "torch_dtype"
                parts[name], info = loader.from_pretrained(
                    folder / name,
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                    **{key: dtype},
                )
                _check_complete(name, info["missing_keys"])
            scheduler = DDPMScheduler.load_config(folder / "scheduler", local_files_only=True)
        except UserError:
            raise
        except Exception as error:
            # Anything can be wrong in files that people bring, and the libraries check little.
            raise UserError(
                f"the model in {folder} cannot be loaded: {_first_line(error)}",
                field="spec.model",
                remedy="Give a complete Stable Diffusion folder in the diffusers layout, with "
                "safetensors weights.",
                reason="ModelNotLoadable",
            ) from error
        return cls(parts["unet"], parts["vae"], parts["text_encoder"], tokenizer, dict(scheduler))

    @property
    def denoiser(self) -> nn.Module:
        """The UNet."""
        unet: nn.Module = self.unet
        return unet

    @property
    def text_encoders(self) -> tuple[nn.Module, ...]:
        """The CLIP text encoder."""
        return (self.text_encoder,)

    @property
    def autoencoder(self) -> nn.Module:
        """The VAE."""
        vae: nn.Module = self.vae
        return vae

    @property
    def resolution(self) -> int:
        """Side of the pictures in pixels."""
        return int(self.unet.config.sample_size) * self._factor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """`(C, H/f, W/f)`."""
        side = int(self.unet.config.sample_size)
        return (int(self.unet.config.in_channels), side, side)

    @property
    def _factor(self) -> int:
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def _scale(self) -> float:
        return float(self.vae.config.scaling_factor)

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "StableDiffusion":
        """Moves all parts to `device`, and the networks to `dtype` if given.

        On the CPU the VAE stays float32: it runs once a picture, and bfloat16 shows as banding.
        """
        for part in (self.unet, self.text_encoder):
            part.to(device=device, dtype=dtype)
            part.to(memory_format=torch.channels_last)
        self.vae.to(device=device, dtype=None if device.type == "cpu" else dtype)
        self._process.to(device)
        return self

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Token ids, one `[B, L]` int64."""
        length = min(self.tokenizer.model_max_length, self._text_length)
        ids: Tensor = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        ).input_ids
        return (ids,)

    def encode_prompt(self, token_ids: tuple[Tensor, ...]) -> Conditioning:
        """The last hidden states, `[B, L, D]`."""
        return Conditioning(self.text_encoder(input_ids=token_ids[0])[0])

    def encode_image(self, pixels: Tensor) -> LatentDistribution:
        """Scaled latent mean and deviation of `pixels` `[B, 3, H, W]` in [-1, 1]."""
        posterior = self.vae.encode(pixels).latent_dist
        return LatentDistribution(
            (posterior.mean * self._scale).float(), (posterior.std * self._scale).float()
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels `[B, 3, H, W]`, nominally in [-1, 1]."""
        latents = latents.to(self.vae.dtype) / self._scale
        pixels: Tensor = self.vae.decode(latents, return_dict=False)[0]
        return pixels

    def timesteps(self, times: Tensor) -> Tensor:
        """`[B]` int64 from 0 to the length of the process, evenly."""
        return self._process.timesteps(times)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's output `[B, C, H/f, W/f]`."""
        output: Tensor = self.unet(noisy, timesteps, conditioning.tokens, return_dict=False)[0]
        return output

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`latents` at `timesteps` `[B]` of the forward process."""
        return self._process.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noise, or the velocity for models that predict that."""
        return self._process.target(latents, noise, timesteps)

    def add_lora(self, rank: int, alpha: float, *, text_encoder: bool, seed: int) -> None:
        """Freezes everything and adds adapters, initialised from `seed`."""
        self.unet.requires_grad_(False)
        self.text_encoder.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.unet.add_adapter(_lora(rank, alpha, LORA_UNET_TARGETS))
            if text_encoder:
                self.text_encoder.add_adapter(_lora(rank, alpha, LORA_TEXT_TARGETS))  # type: ignore[operator]

    def load_lora(self, folder: Path) -> None:
        """Adds the adapters in `folder` and merges them into the weights."""
        pipeline = self._pipeline()
        pipeline.load_lora_weights(folder)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()

    def save(self, folder: Path, *, lora: bool) -> None:
        """Writes the diffusers pipeline, or with `lora` its adapters, to `folder`."""
        if not lora:
            for part in (self.unet, self.vae):
                # Where it was loaded from means nothing to others, and must not change the bytes.
                part.register_to_config(_name_or_path="")
            self._pipeline().save_pretrained(folder, safe_serialization=True)
            return
        text_layers = _adapter_state(self.text_encoder)
        StableDiffusionPipeline.save_lora_weights(
            folder,
            unet_lora_layers=_adapter_state(self.unet),
            text_encoder_lora_layers=text_layers or None,
            safe_serialization=True,
            unet_lora_adapter_metadata=_adapter_metadata(self.unet),
            text_encoder_lora_adapter_metadata=_adapter_metadata(self.text_encoder),
        )

    def _pipeline(self) -> StableDiffusionPipeline:
        return StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=make_scheduler(None, self.scheduler_config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def _check_complete(part: str, missing: Collection[str]) -> None:
    """Refuses weights without some tensors, which the libraries fill with random numbers."""
    if missing:
        names = sorted(missing)
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise UserError(
            f"the weights of the {part} have no {some}",
            field="spec.model",
            remedy="Copy the model again, or convert it again with the diffusers that made it.",
            reason="ModelNotLoadable",
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _lora(rank: int, alpha: float, targets: Sequence[str]) -> LoraConfig:
    return LoraConfig(
        r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=list(targets)
    )


def _adapter_state(module: nn.Module) -> dict[str, Tensor]:
    if not getattr(module, "peft_config", None):
        return {}
    return {name: value.contiguous() for name, value in get_peft_model_state_dict(module).items()}


def _adapter_metadata(module: nn.Module) -> dict[str, Any] | None:
    configs = getattr(module, "peft_config", None)
    if not configs:
        return None
    metadata: dict[str, Any] = next(iter(configs.values())).to_dict()
    for key, value in metadata.items():
        if isinstance(value, set):
            metadata[key] = sorted(value)
    return metadata


def _quiet() -> None:
    """Loading is reported by the pipeline; the libraries' own bars would tear it apart."""
    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
