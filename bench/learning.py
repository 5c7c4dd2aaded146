"""One run of the quality bench: train on a shipped subject, score on poses it never saw.

Uses the runtime's own trainer, sampler and checkpoint selection, without Ray around them.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bench import notebook
from dreambooth.models.defaults import EMOJI
from dreambooth.models.family import ModelFamily
from dreambooth.models.load import load_model
from dreambooth.models.stable_diffusion import StableDiffusion
from dreambooth.quality.encoders import Encoder
from dreambooth.quality.metrics import (
    class_similarity,
    diversity,
    gap_closed,
    subject_fidelity,
)
from dreambooth.sampling.sampler import Sampler
from dreambooth.sampling.settings import BATCH_SIZE, SamplingSettings, picture_seed
from dreambooth.training.distributed import Alone
from dreambooth.training.latents import encode_pictures, to_pixels
from dreambooth.training.schedule import PairSchedule
from dreambooth.training.selection import CheckpointJudge, score
from dreambooth.training.trainer import Trainer, TrainerSettings, TrainingData

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "runtime" / "dreambooth" / "models" / "builtin" / "emoji"
SUBJECTS = {"robot": "robot", "zombie": "zombie", "adventurer": "person"}
TOKEN = "sks"
SCORED_PICTURES = 16
TEST_SEED = 20_000


@dataclass(frozen=True)
class Variant:
    """One row: what is trained, and with what."""

    name: str
    steps: int = EMOJI.training_steps
    learning_rate: float = EMOJI.learning_rate
    schedule: str = EMOJI.learning_rate_schedule
    prior_weight: float = 1.0
    lora_rank: int | None = None
    pure_bf16: bool = False
    notebook: bool = False
    keep_best: bool = True
    class_images: int = EMOJI.class_images
    class_guidance: float = EMOJI.class_guidance
    batch_size: int = EMOJI.batch_size
    text_encoder: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Scores:
    """What pictures of a tuned model are worth; cosines of the encoder against held-out poses."""

    floor: float
    fidelity: float
    ceiling: float
    gap_closed: float
    class_before: float
    class_after: float
    drift_of_gap: float
    diversity_before: float
    diversity_after: float
    diversity_kept: float


@dataclass(frozen=True)
class Figures(Scores):
    """What one run measured."""

    kept_step: int
    seconds: float


class Subject:
    """A shipped subject: photos to train on, poses to score with."""

    def __init__(self, name: str) -> None:
        folder, class_noun = ROOT / "examples" / "subjects", SUBJECTS[name]
        self.name = name
        self.prompt = f"photo of a {TOKEN} {class_noun}"
        self.class_prompt = f"photo of a {class_noun}"
        self.photo_files = sorted((folder / name / "photos").glob("*.png"))
        self.photos = _open(self.photo_files)
        self.held_out = _open(sorted((folder / name / "held-out").glob("*.png")))


class Base:
    """The untuned model's pictures for one subject, made once for all variants."""

    def __init__(
        self, subject: Subject, device: torch.device, encoder: Encoder, scratch: Path
    ) -> None:
        self.sampling = SamplingSettings(EMOJI.scheduler, EMOJI.sampling_steps, EMOJI.guidance)
        self._prompt = subject.class_prompt
        self._scratch = scratch
        self._sampler = Sampler(load_model(MODEL).to(device), device, autocast=True)
        self._class_files: dict[float, list[Path]] = {}
        self.held_out = encoder.embed(subject.held_out)
        self.subject, self.class_pictures = (
            encoder.embed(draw(self._sampler, prompt, SCORED_PICTURES, TEST_SEED, self.sampling))
            for prompt in (subject.prompt, subject.class_prompt)
        )
        self.floor = subject_fidelity(self.subject, self.held_out)
        self.ceiling = subject_fidelity(encoder.embed(subject.photos), self.held_out)

    def class_files(self, count: int, guidance: float) -> list[Path]:
        """Class images to train with, as files."""
        files = self._class_files.setdefault(guidance, [])
        if len(files) < count:
            settings = replace(self.sampling, guidance=guidance)
            folder = self._scratch / f"class-{guidance:g}"
            folder.mkdir(exist_ok=True)
            pictures = draw(self._sampler, self._prompt, count, 0, settings)
            for index in range(len(files), count):
                file = folder / f"{index:03d}.png"
                pictures[index].save(file)
                files.append(file)
        return files[:count]


def draw(
    sampler: Sampler, prompt: str, count: int, seed: int, settings: SamplingSettings
) -> list[Image.Image]:
    """`count` pictures of `prompt`."""
    pictures: list[Image.Image] = []
    for start in range(0, count, BATCH_SIZE):
        seeds = [picture_seed(seed, prompt, start + i, 0) for i in range(BATCH_SIZE)]
        batch = sampler.sample([prompt] * BATCH_SIZE, seeds, settings)
        pictures += [Image.fromarray(picture) for picture in batch]
    return pictures[:count]


def run(
    variant: Variant, subject: Subject, base: Base, encoder: Encoder, device: torch.device
) -> tuple[Figures, list[Image.Image]]:
    """Trains one variant on one subject and scores it."""
    started = time.perf_counter()
    sampler, kept = train(variant, subject, base, encoder, device)
    seconds = time.perf_counter() - started
    scores, pictures = score_pictures(sampler, subject, base, encoder, base.sampling)
    return Figures(**asdict(scores), kept_step=kept, seconds=seconds), pictures


def score_pictures(
    sampler: Sampler, subject: Subject, base: Base, encoder: Encoder, settings: SamplingSettings
) -> tuple[Scores, list[Image.Image]]:
    """Draws subject and class with the tuned model and scores them; four of each come back."""
    pictures = draw(sampler, subject.prompt, SCORED_PICTURES, TEST_SEED, settings)
    of_class = draw(sampler, subject.class_prompt, SCORED_PICTURES, TEST_SEED, settings)
    after, class_after = encoder.embed(pictures), encoder.embed(of_class)
    fidelity = subject_fidelity(after, base.held_out)
    before = class_similarity(base.class_pictures, base.held_out)
    drifted = class_similarity(class_after, base.held_out)
    scores = Scores(
        floor=base.floor,
        fidelity=fidelity,
        ceiling=base.ceiling,
        gap_closed=gap_closed(fidelity, base.floor, base.ceiling),
        class_before=before,
        class_after=drifted,
        drift_of_gap=(drifted - before) / (base.ceiling - base.floor),
        diversity_before=diversity(base.class_pictures),
        diversity_after=diversity(class_after),
        diversity_kept=diversity(class_after) / diversity(base.class_pictures),
    )
    return scores, pictures[:4] + of_class[:4]


def train(
    variant: Variant, subject: Subject, base: Base, encoder: Encoder, device: torch.device
) -> tuple[Sampler, int]:
    """What draws with the tuned model, and the step that was kept."""
    if variant.notebook:
        tuned = _train_notebook(variant, subject, base, device)
        return Sampler(tuned, device, autocast=True), variant.steps
    model = load_model(MODEL).to(device)
    sampler = Sampler(model, device, autocast=True)
    kept = _train_ours(variant, subject, base, model, sampler, encoder, device)
    # They were encoded by what has been trained since.
    sampler.forget_prompts()
    return sampler, kept


def _train_ours(
    variant: Variant,
    subject: Subject,
    base: Base,
    model: ModelFamily,
    sampler: Sampler,
    encoder: Encoder,
    device: torch.device,
) -> int:
    class_files = base.class_files(variant.class_images, variant.class_guidance)
    data = TrainingData(
        photos=encode_pictures(model, subject.photo_files, variant.seed, device),
        class_images=encode_pictures(model, class_files, variant.seed, device),
        photo_ids=model.tokenize([subject.prompt]),
        class_ids=model.tokenize([subject.class_prompt]),
    )
    judge = CheckpointJudge(
        sampler, encoder, subject.photos, (subject.prompt, subject.class_prompt), base.sampling
    )
    before = judge.measure() if variant.keep_best else None
    if variant.lora_rank:
        rank = variant.lora_rank
        model.add_lora(rank, rank, text_encoder=variant.text_encoder, seed=variant.seed)
    settings = TrainerSettings(
        learning_rate=variant.learning_rate,
        prior_weight=variant.prior_weight,
        gradient_clip=1.0,
        text_encoder=variant.text_encoder,
        decay_steps=variant.steps if variant.schedule == "cosine" else None,
        weights_dtype=torch.bfloat16 if variant.pure_bf16 else torch.float32,
    )
    schedule = PairSchedule(variant.seed, len(subject.photos), len(class_files), variant.batch_size)
    trainer = Trainer(model, data, schedule, settings, Alone(), device)
    best: tuple[float, int, dict[str, Tensor]] | None = None
    every = -(-variant.steps // EMOJI.checkpoints)
    while trainer.step < variant.steps:
        trainer.train_step()
        due = trainer.step % every == 0 or trainer.step == variant.steps
        if before is not None and due and 2 * trainer.step > variant.steps:
            value = score(judge.measure(), before, judge.ceiling)
            if best is None or value >= best[0]:
                weights = {name: p.detach().clone() for name, p in trainer.parameters.items()}
                best = (value, trainer.step, weights)
    if best is not None:
        trainer.load_weights(best[2])
        return best[1]
    return variant.steps


def _train_notebook(
    variant: Variant, subject: Subject, base: Base, device: torch.device
) -> StableDiffusion:
    config = notebook.NotebookConfig(
        model_dir=MODEL,
        instance_prompt=subject.prompt,
        class_prompt=subject.class_prompt,
        lr=variant.learning_rate,
        max_train_steps=variant.steps,
        train_batch_size=variant.batch_size,
        prior_loss_weight=variant.prior_weight,
    )
    torch.manual_seed(variant.seed)
    batches = _same_pictures(variant, subject, base)
    pipeline = notebook.train(config, batches, device)
    return StableDiffusion(
        pipeline.unet.float(),
        pipeline.vae.float(),
        pipeline.text_encoder.float(),
        pipeline.tokenizer,
        dict(load_model(MODEL).scheduler_config),
    ).to(device)


def _same_pictures(
    variant: Variant, subject: Subject, base: Base
) -> Iterator[tuple[Tensor, Tensor]]:
    """The very pictures that our trainer sees, step by step."""
    photos = [to_pixels(image) for image in subject.photos]
    of_class = [
        to_pixels(image)
        for image in _open(base.class_files(variant.class_images, variant.class_guidance))
    ]
    schedule = PairSchedule(variant.seed, len(photos), len(of_class), variant.batch_size)
    for step in range(variant.steps):
        pairs = schedule.step(step)
        yield (
            torch.stack([photos[pair.photo] for pair in pairs]),
            torch.stack([of_class[pair.class_image] for pair in pairs]),
        )


def _open(files: Sequence[Path]) -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in files]
