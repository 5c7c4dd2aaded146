"""Runs one job: resolves what the manifest left open, then the five stages in order."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dreambooth.api.job import Job
from dreambooth.errors import BudgetError, DreamBoothError, InfrastructureError
from dreambooth.models.defaults import resolve_settings
from dreambooth.models.resolve import resolve
from dreambooth.models.tokens import (
    check_token,
    choose_token,
    import_tokenizers,
    load_tokenizer,
)
from dreambooth.pipeline.announcer import StageAnnouncer, announce
from dreambooth.pipeline.context import (
    BaseModel,
    Prepares,
    ProgressReport,
    Stage,
    StageContext,
)
from dreambooth.pipeline.journal import Journal
from dreambooth.pipeline.memory import PeakMemory
from dreambooth.pipeline.progress import Event, EventKind, Listener, StageName
from dreambooth.pipeline.ray_session import joins_cluster
from dreambooth.pipeline.records import StageRecord, StageRecords
from dreambooth.pipeline.results import build_result, publish_result, resolved_settings
from dreambooth.pipeline.session import LazyRay
from dreambooth.pipeline.timeline import Timeline
from dreambooth.pipeline.usage import Accounting, GpuMeter
from dreambooth.quality.weights import provide
from dreambooth.spans import Activity, span
from dreambooth.stages.class_images import ClassImagesStage
from dreambooth.stages.evaluate import EvaluateStage
from dreambooth.stages.generate import GenerateStage
from dreambooth.stages.photos import PhotosStage
from dreambooth.stages.train import TrainStage
from dreambooth.workspace.atomic import disk_errors, sweep_temporaries, write_json
from dreambooth.workspace.digest import digest_of
from dreambooth.workspace.layout import JobFolder, Workspace
from dreambooth.workspace.lock import exclusive


def run_job(
    job: Job,
    workspace: Path,
    listeners: Sequence[Listener],
    accounting: Accounting | None = None,
    patience: float = 0.0,
) -> dict[str, Any]:
    """Runs `job` on `workspace`, skipping what an earlier run has finished.

    Args:
        job: A validated job.
        workspace: Root folder of the workspace; made when missing.
        listeners: Are told everything that happens.
        accounting: How GPU time is counted; as the manifest says when left out.
        patience: Seconds to wait for another run of this job to end.

    Returns:
        The content of the job's `result.json`.

    Raises:
        UserError: For what the manifest's author can mend; the job can be run again afterwards.
        BudgetError: If the GPU time is used up.
        InfrastructureError: For what a second try may mend.
    """
    space = Workspace(workspace.absolute())
    folder = space.job(job.id)
    with disk_errors(folder.root):
        folder.root.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.lock, what=f"job {job.name}", patience=patience):
        for each in (folder.root, folder.stages):
            sweep_temporaries(each)
        listeners = [*listeners, Journal(folder)]
        meter = GpuMeter(folder.usage, accounting or Accounting.of(job))
        timeline = Timeline(folder.timeline)
        state = "Failed"
        try:
            result = _Run(job, space, listeners, meter, timeline)()
            state = "Succeeded"
            return result
        except DreamBoothError as error:
            announce(listeners, _failed(error, space, folder))
            raise
        except (KeyboardInterrupt, SystemExit):
            # Ray Train answers Ctrl-C with the second.
            state = "Interrupted"
            data = {"state": state, "exitCode": 130}
            announce(listeners, Event(EventKind.JOB_FAILED, message="interrupted", data=data))
            raise
        finally:
            timeline.finish(state)
            meter.tick()
            # What went wrong before must not be replaced by a disk that refuses this too.
            with contextlib.suppress(InfrastructureError):
                meter.save()


def stages() -> list[Stage]:
    """The five stages in order."""
    return [PhotosStage(), ClassImagesStage(), TrainStage(), GenerateStage(), EvaluateStage()]


class _Run:
    """One run of a job: what its stages share, and the order of things."""

    def __init__(
        self,
        job: Job,
        space: Workspace,
        listeners: Sequence[Listener],
        meter: GpuMeter,
        timeline: Timeline,
    ) -> None:
        self._asked, self._space, self._folder = job, space, space.job(job.id)
        # As far as it is known without the model.
        self._job = resolve_settings(job)
        self._listeners, self._meter, self._timeline = listeners, meter, timeline
        self._model: BaseModel | None = None
        self._records: dict[StageName, StageRecord] = {}
        self._cached: set[StageName] = set()
        self._resources = ExitStack()
        self._session = LazyRay(self._resources, meter)

    def __call__(self) -> dict[str, Any]:
        """The result."""
        started = time.monotonic()
        write_json(self._folder.manifest, self._job.manifest)
        self._tell(
            EventKind.JOB_STARTED,
            message=f"job {self._job.name} on {self._space.root}",
            gpu_seconds=self._meter.of_attempt,
        )
        with self._resources:
            memory = self._resources.enter_context(PeakMemory())
            photos, *others = stages()
            # What is most likely wrong comes first.
            self._pass(photos)
            self._resolve(others[:1])
            while others:
                stage, *others = others
                self._pass(stage, others)
        # On a cluster most of the work is done by processes that this one cannot see.
        peak = 0 if joins_cluster() else memory.peak_bytes
        self._timeline.finish("Succeeded")
        context = self._context(StageName.EVALUATE)
        time_line = self._timeline.to_json()
        result = build_result(context, self._records, self._cached, peak, time_line)
        with span(Activity.REPORT):
            publish_result(context, result)
        self._tell(
            EventKind.JOB_FINISHED,
            seconds=time.monotonic() - started,
            message=result["summary"],
            data=result,
        )
        return result

    def _resolve(self, following: Sequence[Stage]) -> None:
        """Finds the base model, before anything that takes long.

        Once it is there and whole, Ray starts beside the rest, and the `following` what they can.
        """

        def begin() -> None:
            if not self._folder.result.is_file():
                self._session.begin(lambda: self._prepare(following))
            with span(Activity.IMPORTS):
                import_tokenizers()

        with span(Activity.MODEL_RESOLVE):
            self._model = self._base_model(begin)
            self._job = resolve_settings(self._asked, self._model.pipeline)
        self._tell(EventKind.JOB_RESOLVED, data=resolved_settings(self._job, self._model))

    def _base_model(self, on_checked: Callable[[], object]) -> BaseModel:
        asked = self._asked
        resolved = resolve(
            asked.model,
            workspace=self._space.root,
            manifest_dir=asked.manifest_dir,
            on_checked=on_checked,
        )
        if resolved.warning is not None:
            self._tell(EventKind.WARNING, message=resolved.warning)
        return BaseModel(
            resolved.folder,
            resolved.name,
            resolved.revision,
            resolved.digest,
            resolved.pipeline,
            _token(asked, resolved.folder),
            resolved.checker,
        )

    def _pass(self, stage: Stage, following: Sequence[Stage] = ()) -> None:
        """Runs `stage` unless an earlier run has; the `following` may start something ahead."""
        context = self._context(stage.name)
        records = StageRecords(self._folder.stages)
        with span(Activity.DIGEST):
            inputs = digest_of(stage.inputs(context))
            known = records.load(stage.name, inputs)
            intact = known is not None and stage.intact(context, known.outputs)
        if known is not None and intact:
            self._records[stage.name] = known
            self._cached.add(stage.name)
            self._tell_finished(stage.name, known, cached=True)
            return
        self._meter.enter(stage.name)
        self._meter.check()
        self._timeline.enter(stage.name)
        spent = self._meter.of_stage(stage.name)
        self._tell(EventKind.STAGE_STARTED, stage=stage.name, gpu_seconds=spent)
        started = time.monotonic()
        if stage.name is StageName.PHOTOS:
            with span(Activity.PHOTOS):
                result = stage.run(context)
        else:
            # A hub that does not answer is met before the work, not behind it.
            provide(self._job.evaluation.encoder, self._space.models)
            self._session.ensure()
            self._prepare(following)
            result = stage.run(context)
        seconds = time.monotonic() - started
        self._meter.enter(None)
        spent = self._meter.of_stage(stage.name)
        record = StageRecord(inputs, result.outputs, seconds, spent)
        records.save(stage.name, record)
        self._records[stage.name] = record
        if result.cached:
            self._cached.add(stage.name)
        self._timeline.leave(self._meter.gpus)
        self._tell_finished(stage.name, record, cached=result.cached)

    def _prepare(self, stages: Sequence[Stage]) -> None:
        """Lets those of `stages` that were never finished start what they can."""
        records = StageRecords(self._folder.stages)
        for each in stages:
            if isinstance(each, Prepares) and not records.has(each.name):
                each.prepare(self._context(each.name))

    def _context(self, stage: StageName) -> StageContext:
        report = StageAnnouncer(stage, self._listeners)
        return StageContext(
            job=self._job,
            workspace=self._space,
            folder=self._folder,
            base_model=self._model,
            outputs={name: record.outputs for name, record in self._records.items()},
            progress=MeteredProgress(report, stage, self._meter, self._timeline),
            warn=lambda text: self._tell(EventKind.WARNING, stage=stage, message=text),
            later=self._resources.callback,
            budget=self._meter,
        )

    def _tell(self, kind: EventKind, **details: Any) -> None:
        announce(self._listeners, Event(kind, **details))

    def _tell_finished(self, stage: StageName, record: StageRecord, *, cached: bool) -> None:
        self._tell(
            EventKind.STAGE_FINISHED,
            stage=stage,
            cached=cached,
            seconds=record.seconds,
            gpu_seconds=record.gpu_seconds,
        )


class MeteredProgress:
    """The progress report of a stage, which ends it when the GPU time is used up."""

    def __init__(
        self, report: ProgressReport, stage: StageName, meter: GpuMeter, timeline: Timeline
    ) -> None:
        self._report, self._stage, self._meter = report, stage, meter
        self._timeline = timeline

    def __call__(self, done: int, total: int, unit: str, **details: Any) -> None:
        """Passes the progress on.

        Raises:
            BudgetError: If the GPU time is used up. Not while training, which ends by itself with a
                checkpoint.
        """
        self._report(done, total, unit, **details)
        self._meter.tick()
        self._timeline.tick()
        if self._stage is not StageName.TRAIN:
            self._meter.check()


def _token(job: Job, folder: Path) -> str:
    """The subject's token, which the tokenizer of the model in `folder` has accepted."""
    tokenizer = load_tokenizer(folder)
    token = job.subject.token
    if token is None:
        return choose_token(tokenizer, job.subject.class_noun)
    check_token(token, tokenizer, job.subject.class_noun)
    return token


def _failed(error: DreamBoothError, space: Workspace, folder: JobFolder) -> Event:
    data: dict[str, Any] = {
        "field": error.field,
        "remedy": error.remedy,
        "reason": error.reason,
        "exitCode": int(error.exit_code),
        "pid": os.getpid(),
    }
    if isinstance(error, BudgetError) and folder.model.is_dir():
        # The model as far as it was trained is worth having.
        data["outputs"] = {
            "folder": str(folder.root.relative_to(space.root)),
            "model": folder.model.name,
        }
    return Event(EventKind.JOB_FAILED, message=str(error), data=data)
