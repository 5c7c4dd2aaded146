"""Training on a tiny model, in this process."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreambooth.models.family import ModelFamily
from dreambooth.sampling.settings import SamplingSettings
from dreambooth.training.distributed import Alone
from dreambooth.training.latents import encode_pictures
from dreambooth.training.schedule import PairSchedule
from dreambooth.training.trainer import Trainer, TrainerSettings, TrainingData
from dreambooth.training.worker import LoraSettings, TrainingPlan

CPU = torch.device("cpu")


@contextlib.contextmanager
def one_thread_only() -> Iterator[None]:
    """Repeatable and light, and no traces in what follows."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMBOOTH_CPU_THREADS", "1")
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(autouse=True)
def light() -> Iterator[None]:
    """For every test of training."""
    with one_thread_only():
        yield


def pictures(folder: Path, count: int, size: tuple[int, int] = (32, 32)) -> list[Path]:
    """Coarse coloured noise, `size` wide and high."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.png" for number in range(count)]
    for number, file in enumerate(files):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(file)
    return files


def settings(
    *,
    prior_weight: float = 1.0,
    text_encoder: bool = True,
    gradient_clip: float = 1.0,
    learning_rate: float = 1e-4,
    weights_dtype: torch.dtype = torch.float32,
) -> TrainerSettings:
    return TrainerSettings(
        learning_rate,
        prior_weight,
        gradient_clip,
        text_encoder,
        compute_dtype=torch.float32,
        weights_dtype=weights_dtype,
    )


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return pictures(tmp_path / "photos", 3)


@pytest.fixture
def class_images(tmp_path: Path) -> list[Path]:
    return pictures(tmp_path / "class", 5)


def make_trainer(
    model: ModelFamily,
    photos: list[Path],
    class_images: list[Path],
    wanted: TrainerSettings,
) -> Trainer:
    data = TrainingData(
        photos=encode_pictures(model, photos, 0, CPU),
        class_images=encode_pictures(model, class_images, 0, CPU),
        photo_ids=model.tokenize(["photo of a sks dog"]),
        class_ids=model.tokenize(["photo of a dog"]),
    )
    schedule = PairSchedule(0, len(photos), len(class_images), 2)
    return Trainer(model, data, schedule, wanted, Alone(), CPU)


def make_plan(
    folder: Path,
    model: Path,
    photos: list[Path],
    class_images: list[Path],
    *,
    key: str = "key",
    encoder: str | None = None,
    lora: LoraSettings | None = None,
    learning_rate: float = 1e-3,
) -> TrainingPlan:
    """Twelve steps with a checkpoint after every third."""
    return TrainingPlan(
        key=key,
        base_model=str(model),
        output=str(folder / "model"),
        checkpoints=str(folder / "checkpoints"),
        summary=str(folder / "training.json"),
        models_dir=str(folder / "models"),
        photos=[str(file) for file in photos],
        class_images=[str(file) for file in class_images],
        prompt="photo of a sks dog",
        class_prompt="photo of a dog",
        steps=12,
        batch_size=2,
        checkpoint_every=3,
        seed=0,
        settings=settings(learning_rate=learning_rate),
        lora=lora,
        sampling=SamplingSettings("dpmsolver++", 2, 3.0),
        encoder=encoder,
    )
