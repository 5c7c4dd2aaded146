"""Stage 3: prior-preserving fine-tuning with Ray Train."""

import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from dreambooth import spans
from dreambooth.errors import DreamBoothError, InfrastructureError
from dreambooth.pipeline.context import StageContext, StageResult
from dreambooth.pipeline.memory import usable_bytes
from dreambooth.pipeline.placement import Placement, placement
from dreambooth.pipeline.progress import StageName
from dreambooth.pipeline.ray_session import joins_cluster
from dreambooth.sampling.troupe import troupe
from dreambooth.stages.class_images import class_image_files
from dreambooth.stages.photos import photo_files
from dreambooth.stages.pictures import checker_folder, generation_sampling
from dreambooth.workspace.atomic import read_json, remove_tree
from dreambooth.workspace.digest import digest_of, tree_digest

# Part of the inputs' digest. Raised when a change to the trainer changes weights.
TRAINER_VERSION = 3
# With less memory than this, who draws and who trains are there one after the other.
ROOMY_BYTES = 8 * 10**9


class TrainStage:
    """A tuned model in `model/`, resumable at every checkpoint."""

    name = StageName.TRAIN

    def __init__(self) -> None:
        self._group: Any = None
        self._context: StageContext | None = None
        self._failures: list[DreamBoothError] = []
        # Until steps are taken.
        self._drawers_rest_later = False

    def prepare(self, context: StageContext) -> None:
        """Starts the workers if they take nothing from those who draw."""
        where = placement(context.job.cluster.workers)
        if where.overlaps and _has_room(where):
            self._start(context, where)

    def inputs(self, context: StageContext) -> dict[str, Any]:
        """Model, pictures and settings; the number of workers changes nothing and is left out."""
        job = context.job
        return {
            "model": context.model.digest,
            "photos": context.outputs[StageName.PHOTOS]["photos"],
            "classImages": context.outputs[StageName.CLASS_IMAGES]["digests"],
            "prompt": context.fill_in(job.training.prompt),
            "classPrompt": context.fill_in(job.class_images.prompt),
            "training": _settings_json(context),
            "version": TRAINER_VERSION,
            **_kept_checker(context),
        }

    def intact(self, context: StageContext, outputs: dict[str, Any]) -> bool:
        """The tuned model is there, byte for byte."""
        folder = context.folder.model
        return folder.is_dir() and tree_digest(folder) == outputs["digest"]

    def run(self, context: StageContext) -> StageResult:
        """Trains, or goes on training."""
        plan = training_plan(context, digest_of(self.inputs(context)))
        done = _finished(plan)
        if done is not None and self._group is not None:
            self._group.close()
        if done is None:
            # What an earlier run said must not be taken for this one's.
            Path(plan.summary).unlink(missing_ok=True)
            self._fit(context, plan)
            # The digest in it is seconds old, taken from the disk.
            done = _told(plan)
        if done is None and (step := _stopped_at(plan)) is not None:
            raise context.budget.reached(f"training stopped after step {step} of {plan.steps}")
        if done is None:
            raise InfrastructureError(
                "training ended without a result",
                field=plan.summary,
                remedy="Run again; it goes on from the last checkpoint.",
                reason="TrainingIncomplete",
            )
        remove_tree(context.folder.checkpoints)
        outputs = {key: value for key, value in done.items() if key not in ("key", "steps")}
        return StageResult({"lora": plan.lora is not None, **outputs})

    def _start(self, context: StageContext, where: Placement) -> None:
        from dreambooth.training.group import GroupSettings, Preview, TrainingGroup

        workers, training = context.job.cluster.workers, context.job.training
        preview = Preview(
            base_model=str(context.model.folder),
            text_encoder=bool(training.text_encoder),
            lora_rank=training.lora.rank if training.method == "lora" else None,
            pairs=(training.batch_size or 1) // workers,
        )
        settings = GroupSettings(workers, context.folder.ray_train, where, preview)
        self._context = context
        self._group = TrainingGroup(settings, self._hear)
        context.later(self._group.close)

    def _fit(self, context: StageContext, plan: Any) -> None:
        from dreambooth.training.checkpoint import CheckpointStore

        context.progress(0, plan.steps, "steps")
        where = placement(context.job.cluster.workers)
        stay = _may_stay(where)
        if stay:
            troupe.rest()
        elif where.shares_gpu and _has_room(where) and self._finds_room():
            # Giving much memory back takes seconds, in which the GPU's driver lets others wait:
            # nothing of that before steps are taken.
            stay = self._drawers_rest_later = True
        else:
            troupe.dismiss()
        if self._group is None or self._group.lost:
            self._start(context, where)
        self._context = context
        plan = replace(plan, owner=uuid.uuid4().hex, stop_at=_stop_at(context))
        CheckpointStore(Path(plan.checkpoints), plan.key).take_over(plan.owner)
        self._group.give(plan)
        if where.shares_gpu and not stay:
            # Who draws next has started, as far as it can, when training is over.
            troupe.hire(where, 1)
        try:
            self._group.wait()
        except Exception as error:
            raise InfrastructureError(
                f"training failed: {str(error).strip().splitlines()[-1]}",
                field="spec.training",
                remedy="Run again; it goes on from the last checkpoint.",
                reason="TrainingFailed",
            ) from error
        if self._failures:
            raise self._failures[0]

    def _finds_room(self) -> bool:
        """Whether the worker said that it needs nothing of what others hold of its GPU."""
        group = self._group
        return group is not None and group.fits_beside and not group.lost

    def _hear(self, row: dict[str, Any]) -> None:
        """Takes what a worker tells."""
        if self._context is None:
            return
        progress, steps = self._context.progress, self._context.job.training.steps or 0
        if "spans" in row:
            spans.deliver(row["spans"])
        elif "error" in row:
            self._failures.append(row["error"])
        elif "resumed" in row:
            done = row["resumed"]
            progress(done, steps, "steps", resumed=done, message=f"going on from step {done}")
        else:
            if self._drawers_rest_later:
                self._drawers_rest_later = False
                troupe.rest()
            progress(row["step"], steps, "steps", step=row["step"], loss=row["loss"])


def _may_stay(where: Placement) -> bool:
    """Whether who draws stays while others train: not on their GPU, nor in memory they may need."""
    return where.overlaps and not where.shares_gpu and _has_room(where)


def _has_room(where: Placement) -> bool:
    """Whether who draws and who trains find memory at a time; a cluster's has been chosen."""
    return where.draws_elsewhere or joins_cluster() or usable_bytes() >= ROOMY_BYTES


def _finished(plan: Any) -> dict[str, Any] | None:
    """What the workers said of a training that is complete, if the model there is the one."""
    done = _told(plan)
    return done if done and tree_digest(Path(plan.output)) == done.get("digest") else None


def _told(plan: Any) -> dict[str, Any] | None:
    """What the workers say of a training that is complete."""
    done: dict[str, Any] | None = read_json(Path(plan.summary))
    if done is None or done.get("key") != plan.key or not Path(plan.output).is_dir():
        return None
    return done if done.get("steps", plan.steps) >= plan.steps else None


def _stopped_at(plan: Any) -> int | None:
    """The step after which the workers stopped because time was up, if they did."""
    done = read_json(Path(plan.summary))
    if done is None or done.get("key") != plan.key:
        return None
    step: int = done.get("steps", plan.steps)
    return step if step < plan.steps else None


def training_plan(context: StageContext, key: str) -> Any:
    """Everything the workers need, as a `TrainingPlan`."""
    from dreambooth.training.plan import LoraSettings, TrainingPlan
    from dreambooth.training.settings import TrainerSettings

    job, training = context.job, context.job.training
    return TrainingPlan(
        key=key,
        base_model=str(context.model.folder),
        output=str(context.folder.model),
        checkpoints=str(context.folder.checkpoints),
        summary=str(context.folder.root / "training.json"),
        models_dir=str(context.workspace.models),
        photos=[str(file) for file in photo_files(context)],
        class_images=[str(file) for file in class_image_files(context)],
        prompt=context.fill_in(training.prompt),
        class_prompt=context.fill_in(job.class_images.prompt),
        steps=training.steps or 0,
        batch_size=training.batch_size or 1,
        checkpoint_every=training.checkpoint_every or 1,
        seed=training.seed,
        settings=TrainerSettings(
            learning_rate=training.learning_rate or 0.0,
            prior_weight=training.prior_weight,
            gradient_clip=training.gradient_clip,
            text_encoder=bool(training.text_encoder),
            decay_steps=training.steps if training.learning_rate_schedule == "cosine" else None,
        ),
        lora=(
            LoraSettings(training.lora.rank, training.lora.alpha)
            if training.method == "lora"
            else None
        ),
        sampling=generation_sampling(context),
        encoder=job.evaluation.encoder if training.keep == "best" else None,
        checker=checker_folder(context) if _kept_checker(context) else None,
    )


def _kept_checker(context: StageContext) -> dict[str, str]:
    """The safety checker that a whole model takes along; adapters are added to one that has it."""
    checker, method = context.model.checker, context.job.training.method
    return {"checker": checker} if checker and method != "lora" else {}


def _stop_at(context: StageContext) -> float | None:
    left = context.budget.seconds_left()
    return None if left is None else time.time() + left


def _settings_json(context: StageContext) -> dict[str, Any]:
    job, training = context.job, context.job.training
    settings: dict[str, Any] = {
        "method": training.method,
        "steps": training.steps,
        "batchSize": training.batch_size,
        "learningRate": training.learning_rate,
        "learningRateSchedule": training.learning_rate_schedule,
        "priorWeight": training.prior_weight,
        "textEncoder": training.text_encoder,
        "gradientClip": training.gradient_clip,
        "seed": training.seed,
        "keep": training.keep,
    }
    if training.method == "lora":
        settings["lora"] = {"rank": training.lora.rank, "alpha": training.lora.alpha}
    if training.keep == "best":
        settings["selection"] = {
            "encoder": job.evaluation.encoder,
            "checkpointEvery": training.checkpoint_every,
            "sampler": generation_sampling(context).to_json(),
        }
    return settings
