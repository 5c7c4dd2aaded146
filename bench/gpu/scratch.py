"""The model, photos and manifests that GPU benches work on, made once a machine.

The model is a diffusers folder of half-precision safetensors with the architecture of
CompVis/stable-diffusion-v1-4, random weights, its PNDM scheduler, and the tokenizer of the
built-in model with Stable Diffusion's text length: what a text is cut into changes no time.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from bench.tables import ROOT

PROMPT = "photo of a {token} {class}"
CLASS_TEMPLATE = "photo of a {class}"
CLASS_PROMPT = "photo of a robot"
SUBJECT_PROMPT = "photo of a sks robot"
PHOTOS = ROOT / "examples" / "subjects" / "robot" / "photos"
PHOTO_SIDE = 1024
TOKENIZER = ROOT / "runtime" / "dreambooth" / "models" / "builtin" / "emoji" / "tokenizer"


def scratch(tiny: bool) -> Path:
    """Where it all is; `DREAMBOOTH_BENCH_SCRATCH` moves it to another disk."""
    root = Path(os.environ.get("DREAMBOOTH_BENCH_SCRATCH", "/tmp/dreambooth-bench"))
    return root / ("tiny" if tiny else "sd14")


def model_folder(tiny: bool) -> Path:
    """The base model."""
    return scratch(tiny) / "base"


def photo_files(tiny: bool) -> list[Path]:
    """The subject's photos."""
    return sorted((scratch(tiny) / "photos").glob("*.png"))


def prepare(tiny: bool) -> dict[str, Any]:
    """Makes model and photos if they are not there."""
    if not model_folder(tiny).is_dir():
        _export(tiny)
    if not photo_files(tiny):
        _enlarge(tiny)
    size = sum(file.stat().st_size for file in model_folder(tiny).rglob("*") if file.is_file())
    return {"model_bytes": size, "photos": len(photo_files(tiny))}


def is_prepared(tiny: bool) -> bool:
    """Whether model and photos are there."""
    return model_folder(tiny).is_dir() and bool(photo_files(tiny))


def write_job(tiny: bool, name: str, spec: dict[str, Any]) -> Path:
    """A manifest with the model and the photos, and what `spec` says beside them."""
    manifest = {
        "apiVersion": "dreambooth.dev/v1alpha1",
        "kind": "DreamBoothJob",
        "metadata": {"name": name},
        "spec": {
            "subject": {"class": "robot", "token": "sks", "photos": {"path": "photos"}},
            "model": {"path": "base"},
            **spec,
        },
    }
    file = scratch(tiny) / f"{name}.yaml"
    file.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    return file


def _export(tiny: bool) -> None:
    import torch
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    from bench.gpu.architecture import SD14, TEXT_LENGTH, TINY
    from dreambooth.sampling.devices import this_device

    architecture = TINY if tiny else SD14
    with torch.device(this_device()):
        unet, vae, text = architecture.unet(), architecture.vae(), architecture.text_encoder()
    with torch.no_grad():
        # Random weights draw pale pictures; these have the contrast of photographs, and so pass
        # the quality gate, which refuses pictures that look alike.
        vae.decoder.conv_out.weight.mul_(3.0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, model_max_length=TEXT_LENGTH)
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=text.half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            num_train_timesteps=1000,
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    final = model_folder(tiny)
    temporary = final.with_name("base.part")
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline.save_pretrained(temporary, safe_serialization=True)
    temporary.rename(final)


def _enlarge(tiny: bool) -> None:
    """Photos as large as a small camera's, so that reading them takes what it takes."""
    from PIL import Image

    folder = scratch(tiny) / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(PHOTOS.glob("*.png")):
        with Image.open(file) as opened:
            large = opened.convert("RGB").resize((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BICUBIC)
        large.save(folder / file.name)
