"""SDXL and Stable Diffusion 3 at full size, with random weights: speed and memory at 1024 pixels.

Built on the device and given to the product's own sampler and trainer. Stable Diffusion 3 goes
without its T5, which is never trained and only adds to what a prompt costs once.
"""

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from bench.gpu.architecture import TEXT_LENGTH, parameters
from bench.gpu.ours_drawing import measure
from bench.gpu.ours_training import FULL, LORA_RANK, random_data, timed_steps
from bench.gpu.scratch import TOKENIZER
from bench.gpu.timing import synchronize
from dreambooth.models.family import ModelFamily
from dreambooth.models.stable_diffusion_3 import StableDiffusion3
from dreambooth.models.stable_diffusion_xl import StableDiffusionXL
from dreambooth.sampling.devices import sampling_dtype, this_device
from dreambooth.sampling.machines import CpuMachine, GpuMachine
from dreambooth.sampling.settings import SamplingSettings
from dreambooth.sampling.studio import Machine
from dreambooth.training.distributed import Alone
from dreambooth.training.schedule import PairSchedule
from dreambooth.training.trainer import Trainer

SETTINGS = replace(FULL, text_encoder=False)
Make = Callable[[bool], ModelFamily]


def sdxl(tiny: bool) -> Iterator[dict[str, Any]]:
    """SDXL: drawing in the batch that the product chooses, LoRA, and a full fine-tune."""
    yield from _measured("SDXL", make_sdxl, tiny)


def sd3(tiny: bool) -> Iterator[dict[str, Any]]:
    """Stable Diffusion 3 medium."""
    yield from _measured("Stable Diffusion 3", make_sd3, tiny)


def make_sdxl(tiny: bool) -> ModelFamily:
    """With the architecture of stabilityai/stable-diffusion-xl-base-1.0."""
    channels, layers = ((32, 64), [1, 1]) if tiny else ((320, 640, 1280), [1, 2, 10])
    first, second = _text(tiny, 768, 12, 12), _text(tiny, 1280, 32, 20)
    width = first.hidden_size + second.hidden_size
    with_attention = len(channels) - 1
    with torch.device(this_device()):
        unet = UNet2DConditionModel(
            sample_size=8 if tiny else 128,
            in_channels=4,
            out_channels=4,
            block_out_channels=channels,
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * with_attention,
            up_block_types=("CrossAttnUpBlock2D",) * with_attention + ("UpBlock2D",),
            layers_per_block=2,
            transformer_layers_per_block=layers,
            attention_head_dim=[channel // (16 if tiny else 64) for channel in channels],
            cross_attention_dim=width,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8 if tiny else 256,
            projection_class_embeddings_input_dim=second.projection_dim + 6 * (8 if tiny else 256),
        )
        vae = _vae(tiny, 4, force_upcast=True)
        texts = CLIPTextModel(first), CLIPTextModelWithProjection(second)
    config = {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "timestep_spacing": "leading",
    }
    return StableDiffusionXL(unet, vae, *texts, (_tokenizer(), _tokenizer()), config)


def make_sd3(tiny: bool) -> ModelFamily:
    """With the architecture of stabilityai/stable-diffusion-3-medium."""
    first, second = _text(tiny, 768, 12, 12), _text(tiny, 1280, 32, 20)
    heads, width = (2, 16) if tiny else (24, 64)
    with torch.device(this_device()):
        transformer = SD3Transformer2DModel(
            sample_size=8 if tiny else 128,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2 if tiny else 24,
            attention_head_dim=width,
            num_attention_heads=heads,
            joint_attention_dim=128 if tiny else 4096,
            caption_projection_dim=heads * width,
            pooled_projection_dim=first.projection_dim + second.projection_dim,
            pos_embed_max_size=192,
        )
        vae = _vae(tiny, 16, force_upcast=False)
        texts = CLIPTextModelWithProjection(first), CLIPTextModelWithProjection(second)
    config = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "shift": 3.0,
    }
    return StableDiffusion3(transformer, vae, *texts, (_tokenizer(), _tokenizer()), config)


def _text(tiny: bool, width: int, layers: int, heads: int) -> CLIPTextConfig:
    if tiny:
        width, layers, heads = 32, 2, 2
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=TEXT_LENGTH,
        hidden_act="gelu",
        projection_dim=width,
    )


def _vae(tiny: bool, channels: int, *, force_upcast: bool) -> AutoencoderKL:
    widths = (32, 64) if tiny else (128, 256, 512, 512)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=channels,
        sample_size=1024,
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        force_upcast=force_upcast,
    )


def _tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=TEXT_LENGTH)


def _measured(name: str, make: Make, tiny: bool) -> Iterator[dict[str, Any]]:
    for work in (_draw, _train_lora, _train_full):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        row: dict[str, Any] = {"family": name}
        try:
            row |= work(make, tiny)
        except Exception as error:
            row |= {"work": work.__name__, "failed": f"{type(error).__name__}: {str(error)[:300]}"}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(row, flush=True)
        yield row


def _draw(make: Make, tiny: bool) -> dict[str, Any]:
    device = this_device()
    model = make(tiny).to(device, sampling_dtype(device))
    machine: Machine = GpuMachine(model, device) if device.type == "cuda" else CpuMachine(model)
    batch = 1 if tiny else machine.batches(SamplingSettings(None, 50, 7.5)).next(10**6)
    return {
        "work": "a picture",
        "batch": batch,
        "parameters": parameters(model.denoiser),
        **measure(machine, batch),
    }


def _train_lora(make: Make, tiny: bool) -> dict[str, Any]:
    return {"work": "LoRA, 1 + 1", **_train(make, tiny, lora=True)}


def _train_full(make: Make, tiny: bool) -> dict[str, Any]:
    return {"work": "full, text encoders frozen, 1 + 1", **_train(make, tiny, lora=False)}


def _train(make: Make, tiny: bool, *, lora: bool) -> dict[str, Any]:
    device = this_device()
    model = make(tiny).to(device)
    data = random_data(model)
    if lora:
        model.add_lora(LORA_RANK, float(LORA_RANK), text_encoder=False, seed=0)
    model.autoencoder.to("cpu")
    synchronize()
    began = time.perf_counter()
    schedule = PairSchedule(0, len(data.photos), len(data.class_images), 1)
    trainer = Trainer(model, data, schedule, SETTINGS, Alone(), device)
    synchronize()
    setup = time.perf_counter() - began
    return {"setup_s": setup, **timed_steps(trainer, 2 if tiny else 8)}
