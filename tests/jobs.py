"""Small jobs: a manifest, its photos and a model of a few thousand weights on a workspace."""

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from dreambooth.api.job import Job
from dreambooth.api.manifest import load_job

PHOTOS = 3
# Twelve steps with a checkpoint after every third, a handful of pictures: a second of computing.
SPEC: dict[str, Any] = {
    "subject": {"class": "dog", "token": "sks", "photos": {"path": "photos"}},
    "model": {"path": "tiny"},
    "classImages": {"count": 4, "steps": 2, "guidance": 1.0},
    "training": {
        "steps": 12,
        "batchSize": 2,
        "checkpointEvery": 3,
        "learningRate": 0.001,
        "keep": "last",
    },
    "generation": {"prompts": ["photo of a {token} {class}"], "imagesPerPrompt": 2, "steps": 2},
    "evaluation": {"imagesPerPrompt": 2, "encoder": "efficientnet-lite0"},
}


def write_photo(file: Path, seed: int, side: int = 64) -> None:
    """Coarse coloured noise, which is neither flat nor blurred."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((side, side), Image.Resampling.NEAREST).save(file)


def lay_out(workspace: Path, model: Path) -> Path:
    """Puts photos and a copy of `model` on `workspace`; returns it."""
    (workspace / "photos").mkdir(parents=True)
    for number in range(PHOTOS):
        write_photo(workspace / "photos" / f"{number}.png", number)
    shutil.copytree(model, workspace / "tiny")
    return workspace


def write_manifest(
    folder: Path, changes: Mapping[str, Any] | None = None, *, name: str = "rex"
) -> Path:
    """The manifest of the small job with `changes`, e.g. `{"training.steps": 6}`."""
    spec = copy.deepcopy(SPEC)
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        inner = spec
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    file = folder / f"{name}.yaml"
    document = {
        "apiVersion": "dreambooth.dev/v1alpha1",
        "kind": "DreamBoothJob",
        "metadata": {"name": name},
        "spec": spec,
    }
    file.write_text(yaml.safe_dump(document))
    return file


def a_job(workspace: Path, changes: Mapping[str, Any] | None = None, *, name: str = "rex") -> Job:
    """The small job with `changes`, as the command reads it."""
    return load_job(write_manifest(workspace, changes, name=name))
