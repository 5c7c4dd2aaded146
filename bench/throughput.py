"""How fast the product draws and trains on this machine's CPU, beside plain diffusers code.

All contenders take turns in one process, so that what disturbs the machine disturbs them alike,
and each figure is the median over the rounds.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from torch import Tensor

from bench.learning import MODEL, Subject, draw
from bench.plain_diffusers import DreamBoothLoop, Pipeline
from dreambooth.models.defaults import EMOJI
from dreambooth.models.family import ModelFamily
from dreambooth.models.load import load_model
from dreambooth.sampling.devices import prepare_process, sampling_dtype
from dreambooth.sampling.machines import load_machine
from dreambooth.sampling.sampler import Sampler
from dreambooth.sampling.settings import (
    BATCH_SIZE,
    PictureRequest,
    SamplingSettings,
    picture_seed,
)
from dreambooth.sampling.studio import draw as draw_list
from dreambooth.training.distributed import Alone
from dreambooth.training.latents import encode_pictures, to_pixels
from dreambooth.training.schedule import PairSchedule
from dreambooth.training.trainer import Trainer, TrainerSettings, TrainingData

STEPS_A_ROUND = 8
ONE_BY_ONE_A_ROUND = 3


@dataclass(frozen=True)
class Contender:
    """Something that does `amount` units of work at each call."""

    name: str
    amount: int
    work: Callable[[], object]


def generation_rates(ours: str, rounds: int) -> dict[str, float]:
    """Images a second, by contender, ours under the name `ours`: the default pictures."""
    device = prepare_process()
    prompt = Subject("robot").prompt
    settings = SamplingSettings(EMOJI.scheduler, EMOJI.sampling_steps, EMOJI.guidance)
    machine = load_machine(str(MODEL), None, device)
    requests = [
        PictureRequest(index, 0, prompt, picture_seed(0, prompt, index, 0))
        for index in range(BATCH_SIZE)
    ]
    plain = Pipeline(MODEL)
    half = Pipeline(MODEL, sampling_dtype(device))
    batch = [prompt] * BATCH_SIZE

    def one_by_one() -> None:
        for _ in range(ONE_BY_ONE_A_ROUND):
            plain.draw([prompt], settings)

    contenders = [
        Contender(ours, BATCH_SIZE, lambda: list(draw_list(machine, requests, settings))),
        Contender("diffusers, a picture a call", ONE_BY_ONE_A_ROUND, one_by_one),
        Contender("diffusers, 8 a call", BATCH_SIZE, lambda: plain.draw(batch, settings)),
    ]
    if sampling_dtype(device) is not torch.float32:
        name = f"diffusers, 8 a call, {_short(sampling_dtype(device))}"
        contenders.append(Contender(name, BATCH_SIZE, lambda: half.draw(batch, settings)))
    return _rates(contenders, rounds)


def training_rates(ours: str, rounds: int, scratch: Path) -> dict[str, float]:
    """Optimizer steps a second, by contender, ours under `ours`: the defaults on the robot."""
    subject = Subject("robot")
    device = prepare_process()
    model = load_model(MODEL).to(device)
    class_files = _class_pictures(model, device, subject, scratch)
    schedule = PairSchedule(0, len(subject.photos), len(class_files), EMOJI.batch_size)
    trainer = _our_trainer(model, device, subject, class_files, schedule)
    loop = DreamBoothLoop(
        MODEL, (subject.prompt, subject.class_prompt), EMOJI.batch_size, EMOJI.learning_rate
    )
    batches = _batches(schedule, subject.photos, class_files)

    def train_ours() -> None:
        for _ in range(STEPS_A_ROUND):
            trainer.train_step()

    contenders = [
        Contender(ours, STEPS_A_ROUND, train_ours),
        Contender(
            "loop of diffusers' `train_dreambooth.py`",
            STEPS_A_ROUND,
            lambda: loop.train(batches, STEPS_A_ROUND),
        ),
    ]
    return _rates(contenders, rounds)


def _rates(contenders: Sequence[Contender], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    # The first round warms up: kernels are chosen, memory is taken.
    for round_number in range(rounds + 1):
        for contender in contenders:
            began = time.perf_counter()
            contender.work()
            if round_number:
                seconds[contender.name].append(time.perf_counter() - began)
    return {c.name: c.amount / median(seconds[c.name]) for c in contenders}


def _class_pictures(
    model: ModelFamily, device: torch.device, subject: Subject, scratch: Path
) -> list[Path]:
    settings = SamplingSettings(EMOJI.scheduler, EMOJI.sampling_steps, EMOJI.class_guidance)
    sampler = Sampler(model, device, autocast=True)
    files = []
    for index, picture in enumerate(draw(sampler, subject.class_prompt, BATCH_SIZE, 0, settings)):
        files.append(scratch / f"{index}.png")
        picture.save(files[-1])
    return files


def _our_trainer(
    model: ModelFamily,
    device: torch.device,
    subject: Subject,
    class_files: Sequence[Path],
    schedule: PairSchedule,
) -> Trainer:
    data = TrainingData(
        photos=encode_pictures(model, subject.photo_files, 0, device),
        class_images=encode_pictures(model, class_files, 0, device),
        photo_ids=model.tokenize([subject.prompt]),
        class_ids=model.tokenize([subject.class_prompt]),
    )
    settings = TrainerSettings(
        learning_rate=EMOJI.learning_rate,
        prior_weight=1.0,
        gradient_clip=1.0,
        text_encoder=True,
    )
    return Trainer(model, data, schedule, settings, Alone(), device)


def _batches(
    schedule: PairSchedule, photos: Sequence[Image.Image], class_files: Sequence[Path]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The pictures that our trainer sees, step by step."""
    of_photos = [to_pixels(photo) for photo in photos]
    of_class = [to_pixels(Image.open(file).convert("RGB")) for file in class_files]
    for step in itertools.count():
        pairs = schedule.step(step)
        yield (
            torch.stack([of_photos[pair.photo] for pair in pairs]),
            torch.stack([of_class[pair.class_image] for pair in pairs]),
        )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
