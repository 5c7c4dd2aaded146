"""What one Ray Train worker does: load, resume, train, choose, save."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image

from dreambooth import spans
from dreambooth.errors import DreamBoothError, InfrastructureError, UserError
from dreambooth.models.family import ModelFamily
from dreambooth.quality.encoders import load_encoder
from dreambooth.sampling.devices import this_device
from dreambooth.sampling.sampler import Sampler
from dreambooth.spans import Activity, span
from dreambooth.training.checkpoint import CheckpointStore
from dreambooth.training.distributed import World, current_world
from dreambooth.training.head_start import HeadStart, get_ready, prepare_device
from dreambooth.training.keeping import Keeper
from dreambooth.training.latents import encode_pictures
from dreambooth.training.plan import LoraSettings, TrainingPlan
from dreambooth.training.schedule import PairSchedule
from dreambooth.training.selection import CheckpointJudge, Selection
from dreambooth.training.settings import TrainingData
from dreambooth.training.telemetry import PlanToCome, Telemetry
from dreambooth.training.trainer import Trainer

__all__ = ["LoraSettings", "TrainingPlan", "train_worker"]

T = TypeVar("T")

# Workers agree about the time this often: it costs a round between them, during which all wait.
TIME_CHECK_STEPS = 8


def train_worker(config: dict[str, Any]) -> None:
    """Entry point for Ray Train: `config` holds the actor `relay`, and when it was `asked`.

    Without a `plan` in it the relay gives one; a worker may be there long before it does, and
    compiles meanwhile what a `preview` says will be needed. An error that the user can mend is sent
    to the driver rather than raised: Ray Train would take it for a failed worker and start the
    group again.
    """
    spans.arrived(config.get("asked"))
    world = current_world()
    plan: TrainingPlan | None = config.get("plan")
    head_start = HeadStart()
    if plan is None:
        coming = PlanToCome(config["relay"])
        if (preview := config.get("preview")) is not None and this_device().type == "cuda":
            head_start = get_ready(preview, coming, world, config["relay"])
        plan = coming.wait()
    if plan is None:
        return
    telemetry = Telemetry(config["relay"], speaks=world.rank == 0)
    try:
        _train(plan, world, telemetry, head_start)
    except DreamBoothError as error:
        telemetry.fail(error)
    finally:
        telemetry.last_spans()
    telemetry.done()


def _train(plan: TrainingPlan, world: World, telemetry: Telemetry, start: HeadStart) -> None:
    with span(Activity.DEVICE_START):
        device = prepare_device(world)
    spans.call_this_process(f"training worker {world.rank}", device=device.type)
    store = CheckpointStore(Path(plan.checkpoints), plan.key, plan.owner)
    _by_first(world, store.prepare)
    latest = store.latest()
    model = start.take_model(plan.base_model, device)
    with span(Activity.ENCODE_LATENTS):
        data = _encode(plan, model, device)
    selection = Selection()
    known = latest.meta["selection"] if latest else None
    _by_first(world, lambda: selection.start(_judge(plan, model, device), known))
    trainer = _make_trainer(plan, model, data, world, device)
    keeper = Keeper(plan, store, selection)
    try:
        if latest is not None:
            trainer.restore(latest)
            telemetry.send({"resumed": latest.step})
        _run(plan, trainer, keeper, telemetry)
        trainer.collect()
        _by_first(world, lambda: keeper.end(model, trainer))
    finally:
        keeper.close()
        # Before the process group ends: a graph may hold kernels of its communicator.
        trainer.engine.finish()


def _make_trainer(
    plan: TrainingPlan,
    model: ModelFamily,
    data: TrainingData,
    world: World,
    device: torch.device,
) -> Trainer:
    if plan.lora is not None:
        model.add_lora(
            plan.lora.rank,
            plan.lora.alpha,
            text_encoder=plan.settings.text_encoder,
            seed=plan.seed,
        )
    if plan.encoder is None:
        # Nothing is drawn before the end, and then from the files.
        model.autoencoder.to("cpu")
    schedule = PairSchedule(plan.seed, len(data.photos), len(data.class_images), plan.batch_size)
    with span(Activity.FIRST_RUN):
        return Trainer(model, data, schedule, plan.settings, world, device)


def _run(plan: TrainingPlan, trainer: Trainer, keeper: Keeper, telemetry: Telemetry) -> None:
    """Trains until the last step or until time is up, with checkpoints on the way."""
    world = trainer.world
    losses = _Losses(trainer, telemetry)
    while trainer.step < plan.steps:
        with span(Activity.TRAINING_STEPS):
            in_time = _to_next_checkpoint(plan, trainer, keeper, losses)
            trainer.settle()
            losses.look()
        if not in_time:
            return
        if trainer.step < plan.steps and world.agree(
            bool(_by_first(world, lambda: keeper.is_due(trainer)))
        ):
            trainer.collect()
            _by_first(world, lambda: keeper.keep(trainer))
        telemetry.tell_spans()


def _to_next_checkpoint(
    plan: TrainingPlan, trainer: Trainer, keeper: Keeper, losses: "_Losses"
) -> bool:
    """Trains to where a checkpoint is due, or the end; False if time was up before."""
    while True:
        if _time_is_up(plan, trainer):
            return False
        trainer.advance()
        losses.look()
        if trainer.world.size == 1:
            # With others, all have to hear of it at once: when the next checkpoint is due.
            keeper.check()
        if trainer.step == plan.steps or trainer.step % plan.checkpoint_every == 0:
            return True


def _by_first(world: World, work: Callable[[], T]) -> T | None:
    """What the first worker finds who does alone what one has to do; the others wait, for None.

    Raises:
        DreamBoothError: If it failed, and in all workers: they would wait for it without end.
    """
    found: T | None = None
    failure: DreamBoothError | None = None
    if world.rank == 0:
        try:
            found = work()
        except DreamBoothError as error:
            failure = error
    if world.agree(failure is not None):
        raise failure or InfrastructureError("the first worker failed")
    return found


class _Losses:
    """Looks at losses as they arrive, some steps after their own."""

    def __init__(self, trainer: Trainer, telemetry: Telemetry) -> None:
        self._trainer = trainer
        self._telemetry = telemetry
        self._seen = trainer.step

    def look(self) -> None:
        """Reports new losses.

        Raises:
            UserError: If nothing good can come of the training any more; all workers see the same
                losses at the same steps.
        """
        for loss in self._trainer.losses[self._seen :]:
            self._seen += 1
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss of step {self._seen} is {loss}: training has diverged",
                    field="spec.training.learningRate",
                    remedy="Give a lower learning rate.",
                    reason="TrainingDiverged",
                )
            self._telemetry.step(self._seen, loss)


def _time_is_up(plan: TrainingPlan, trainer: Trainer) -> bool:
    """Whether to stop before the next step; workers' clocks differ, so they agree."""
    world = trainer.world
    if plan.stop_at is None or (world.size > 1 and trainer.step % TIME_CHECK_STEPS):
        return False
    return world.agree(time.time() >= plan.stop_at)


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
