"""What one Ray Train worker does: load, resume, train, choose, save."""

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dreambooth import spans
from dreambooth.errors import DreamBoothError, InfrastructureError, UserError
from dreambooth.models.family import ModelFamily
from dreambooth.models.load import load_model
from dreambooth.quality.encoders import load_encoder
from dreambooth.sampling.devices import compute_repeatably, physical_threads, this_device
from dreambooth.sampling.sampler import Sampler
from dreambooth.sampling.settings import SamplingSettings
from dreambooth.spans import Activity, span
from dreambooth.training.checkpoint import Checkpoint, CheckpointStore
from dreambooth.training.distributed import World, current_world
from dreambooth.training.latents import encode_pictures
from dreambooth.training.schedule import PairSchedule
from dreambooth.training.selection import CheckpointJudge, Measurement, measurement_from, score
from dreambooth.training.telemetry import Telemetry, await_plan
from dreambooth.training.trainer import Trainer, TrainerSettings, TrainingData
from dreambooth.workspace.atomic import publish_dir, temporary_sibling, write_json
from dreambooth.workspace.digest import tree_digest


@dataclass(frozen=True)
class LoraSettings:
    """Rank and scale of the adapters."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class TrainingPlan:
    """Everything a worker needs; plain values, for it travels to other machines.

    Attributes:
        key: Digest of all inputs; checkpoints of another key are not resumed from.
        base_model: Diffusers folder of the base model.
        output: Where the tuned model goes.
        summary: JSON file for what the driver wants to know afterwards.
        class_prompt, prompt: The two prompts, placeholders filled in.
        sampling: Sampler for the pictures that choose a checkpoint.
        encoder: Name of the image encoder that measures them; None keeps the last checkpoint.
        owner: Names this training; workers of an earlier one stop writing. None for the only one.
        stop_at: Time of the system's clock to stop at, between two steps, with a checkpoint and the
            model as it is then; None trains to the end.
    """

    key: str
    base_model: str
    output: str
    checkpoints: str
    summary: str
    models_dir: str
    photos: list[str]
    class_images: list[str]
    prompt: str
    class_prompt: str
    steps: int
    batch_size: int
    checkpoint_every: int
    seed: int
    settings: TrainerSettings
    lora: LoraSettings | None
    sampling: SamplingSettings
    encoder: str | None
    owner: str | None = None
    stop_at: float | None = None


def train_worker(config: dict[str, Any]) -> None:
    """Entry point for Ray Train: `config` holds the actor `relay`, and when it was `asked`.

    Without a `plan` in it the relay gives one; a worker may be there long before it does. An error
    that the user can mend is sent to the driver rather than raised: Ray Train would take it for a
    failed worker and start the group again.
    """
    spans.arrived(config.get("asked"))
    plan: TrainingPlan | None = config.get("plan") or await_plan(config["relay"])
    if plan is None:
        return
    world = current_world()
    telemetry = Telemetry(config["relay"], speaks=world.rank == 0)
    try:
        _train(plan, world, telemetry)
    except DreamBoothError as error:
        telemetry.fail(error)
    finally:
        telemetry.last_spans()
    telemetry.done()


def _train(plan: TrainingPlan, world: World, telemetry: Telemetry) -> None:
    with span(Activity.DEVICE_START):
        device = _prepare(world)
    spans.call_this_process(f"training worker {world.rank}", device=device.type)
    store = CheckpointStore(Path(plan.checkpoints), plan.key, plan.owner)
    _by_first(world, store.prepare)
    latest = store.latest()
    with span(Activity.MODEL_LOAD):
        model = load_model(Path(plan.base_model)).to(device)
    with span(Activity.ENCODE_LATENTS):
        data = _encode(plan, model, device)
    selection = _Selection()
    _by_first(world, lambda: selection.start(_judge(plan, model, device), latest))
    if plan.lora is not None:
        model.add_lora(
            plan.lora.rank,
            plan.lora.alpha,
            text_encoder=plan.settings.text_encoder,
            seed=plan.seed,
        )
    schedule = PairSchedule(plan.seed, len(data.photos), len(data.class_images), plan.batch_size)
    trainer = Trainer(model, data, schedule, plan.settings, world, device)
    if latest is not None:
        trainer.restore(latest)
        telemetry.send({"resumed": latest.step})
    began = time.time()
    while trainer.step < plan.steps and not _time_is_up(plan, world):
        loss = trainer.train_step()
        _check(loss, trainer.step)
        telemetry.step(trainer.step, loss)
        if trainer.step % plan.checkpoint_every == 0 or trainer.step == plan.steps:
            spans.note(Activity.TRAINING_STEPS, began, time.time())
            _by_first(world, lambda: _keep(plan, store, trainer, selection))
            telemetry.tell_spans()
            began = time.time()
    spans.note(Activity.TRAINING_STEPS, began, time.time())
    _by_first(world, lambda: _end(plan, model, store, trainer, selection))


def _by_first(world: World, work: Callable[[], None]) -> None:
    """Lets the first worker do what one has to do alone; the others wait.

    Raises:
        DreamBoothError: If it failed, and in all workers: they would wait for it without end.
    """
    failure: DreamBoothError | None = None
    if world.rank == 0:
        try:
            work()
        except DreamBoothError as error:
            failure = error
    if world.agree(failure is not None):
        raise failure or InfrastructureError("the first worker failed")


def _check(loss: float, step: int) -> None:
    """Ends a training that nothing good can come of any more; all workers see the same loss."""
    if not math.isfinite(loss):
        raise UserError(
            f"the loss of step {step} is {loss}: training has diverged",
            field="spec.training.learningRate",
            remedy="Give a lower learning rate.",
            reason="TrainingDiverged",
        )


def _time_is_up(plan: TrainingPlan, world: World) -> bool:
    """Whether to stop before the next step; workers' clocks differ, so they agree."""
    return plan.stop_at is not None and world.agree(time.time() >= plan.stop_at)


def _keep(
    plan: TrainingPlan, store: CheckpointStore, trainer: Trainer, selection: "_Selection"
) -> None:
    """Measures where that is due, and saves."""
    selection.consider(trainer.step, plan.steps)
    _save_state(store, trainer, selection)


def _save_state(store: CheckpointStore, trainer: Trainer, selection: "_Selection") -> None:
    with span(Activity.CHECKPOINT):
        store.save(trainer.checkpoint({"selection": selection.to_json()}))
    store.keep_only({trainer.step, selection.best(trainer.step)})


def _end(
    plan: TrainingPlan,
    model: ModelFamily,
    store: CheckpointStore,
    trainer: Trainer,
    selection: "_Selection",
) -> None:
    if trainer.step not in store.steps():
        # Stopped between two checkpoints. Nothing is measured, or a job that goes on from here
        # would choose among others than one that was never stopped.
        _save_state(store, trainer, selection)
    chosen = selection.best(trainer.step)
    trainer.load_weights(store.load_weights(chosen))
    store.check_owner()
    with span(Activity.SAVE_MODEL):
        _save(plan, model, trainer, selection, chosen)


class _Selection:
    """What has been measured so far; part of every checkpoint, so that nothing is drawn twice."""

    def __init__(self) -> None:
        self._judge: CheckpointJudge | None = None
        self._base: Measurement | None = None
        self._measured: dict[int, Measurement] = {}

    def start(self, judge: CheckpointJudge | None, latest: Checkpoint | None) -> None:
        """Takes over what `latest` knows, or measures the base model; without a judge neither."""
        self._judge = judge
        if judge is None:
            return
        if latest is None:
            with span(Activity.MEASURE):
                self._base = judge.measure()
            return
        known = latest.meta["selection"]
        self._base = measurement_from(known["base"])
        self._measured = {int(s): measurement_from(m) for s, m in known["measured"].items()}

    def consider(self, step: int, steps: int) -> None:
        """Measures the model after `step` of `steps` steps; the first half is never the best."""
        if self._judge is not None and 2 * step > steps:
            with span(Activity.MEASURE):
                self._measured[step] = self._judge.measure()

    def best(self, last: int) -> int:
        """The step with the highest score, the later of equals; `last` if none was measured."""
        if self._judge is None or self._base is None or not self._measured:
            return last
        scores = {
            step: score(measured, self._base, self._judge.ceiling)
            for step, measured in self._measured.items()
        }
        return max(scores, key=lambda step: (scores[step], step))

    def to_json(self) -> dict[str, Any]:
        """JSON-able; the inverse of what `start` reads."""
        return {
            "base": self._base.to_json() if self._base else None,
            "measured": {str(step): m.to_json() for step, m in self._measured.items()},
        }


def _prepare(world: World) -> torch.device:
    device = this_device()
    if world.size > 1 and device.type == "cuda":
        import ray.train.torch

        device = ray.train.torch.get_device()
    if device.type == "cpu":
        compute_repeatably()
        # Workers of one machine share its cores.
        share = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, physical_threads() // share))
    torch.manual_seed(0)
    return device


def _encode(plan: TrainingPlan, model: ModelFamily, device: torch.device) -> TrainingData:
    return TrainingData(
        photos=encode_pictures(model, [Path(p) for p in plan.photos], plan.seed, device),
        class_images=encode_pictures(
            model, [Path(p) for p in plan.class_images], plan.seed, device
        ),
        photo_ids=model.tokenize([plan.prompt]),
        class_ids=model.tokenize([plan.class_prompt]),
    )


def _judge(plan: TrainingPlan, model: ModelFamily, device: torch.device) -> CheckpointJudge | None:
    if plan.encoder is None:
        return None
    photos = []
    for file in plan.photos:
        with Image.open(file) as image:
            photos.append(image.convert("RGB"))
    with span(Activity.ENCODER_LOAD):
        encoder = load_encoder(plan.encoder, Path(plan.models_dir))
    return CheckpointJudge(
        Sampler(model, device, autocast=True),
        encoder,
        photos,
        (plan.prompt, plan.class_prompt),
        plan.sampling,
    )


def _save(
    plan: TrainingPlan,
    model: ModelFamily,
    trainer: Trainer,
    selection: _Selection,
    chosen: int,
) -> None:
    final = Path(plan.output)
    temporary = temporary_sibling(final)
    try:
        model.save(temporary, lora=plan.lora is not None)
        publish_dir(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    write_json(
        Path(plan.summary),
        {
            "key": plan.key,
            "steps": trainer.step,
            "digest": tree_digest(final),
            "losses": trainer.losses,
            "keptStep": chosen,
            "selection": selection.to_json(),
            "trainedParameters": sum(p.numel() for p in trainer.parameters.values()),
        },
    )
