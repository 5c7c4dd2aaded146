"""Runs one job: resolves what the manifest left open, then the five stages in order."""

import contextlib
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dreambooth.api.job import Job
from dreambooth.errors import BudgetError, DreamBoothError, InfrastructureError
from dreambooth.models.defaults import resolve_settings
from dreambooth.models.resolve import resolve
from dreambooth.models.tokens import check_token, choose_token, load_tokenizer
from dreambooth.pipeline.announcer import StageAnnouncer, announce
from dreambooth.pipeline.context import BaseModel, ProgressReport, Stage, StageContext
from dreambooth.pipeline.journal import Journal
from dreambooth.pipeline.memory import PeakMemory
from dreambooth.pipeline.progress import Event, EventKind, Listener, StageName
from dreambooth.pipeline.ray_session import joins_cluster, ray_session
from dreambooth.pipeline.records import StageRecord, StageRecords
from dreambooth.pipeline.results import build_result, publish_result, resolved_settings
from dreambooth.pipeline.usage import Accounting, GpuMeter
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
        try:
            return _run(resolve_settings(job), space, listeners, meter)
        except DreamBoothError as error:
            announce(listeners, _failed(error, space, folder))
            raise
        except (KeyboardInterrupt, SystemExit):
            # Ray Train answers Ctrl-C with the second.
            data = {"state": "Interrupted", "exitCode": 130}
            announce(listeners, Event(EventKind.JOB_FAILED, message="interrupted", data=data))
            raise
        finally:
            meter.tick()
            # What went wrong before must not be replaced by a disk that refuses this too.
            with contextlib.suppress(InfrastructureError):
                meter.save()


def stages() -> list[Stage]:
    """The five stages in order."""
    return [PhotosStage(), ClassImagesStage(), TrainStage(), GenerateStage(), EvaluateStage()]


def _run(
    job: Job, space: Workspace, listeners: Sequence[Listener], meter: GpuMeter
) -> dict[str, Any]:
    started, earlier = time.monotonic(), meter.of_attempt
    folder = space.job(job.id)
    write_json(folder.manifest, job.manifest)
    model = _base_model(job, space)
    outputs: dict[StageName, dict[str, Any]] = {}
    records: dict[StageName, StageRecord] = {}
    cached: set[StageName] = set()
    announce(
        listeners,
        Event(
            EventKind.JOB_STARTED,
            message=f"job {job.name} on {space.root}",
            gpu_seconds=earlier,
            data=resolved_settings(job, model),
        ),
    )
    with ExitStack() as resources:
        memory = resources.enter_context(PeakMemory())
        session = LazyRay(resources, meter)
        for stage in stages():
            context = StageContext(
                job=job,
                workspace=space,
                folder=folder,
                model=model,
                outputs=outputs,
                progress=MeteredProgress(StageAnnouncer(stage.name, listeners), stage.name, meter),
                warn=lambda text, name=stage.name: announce(  # type: ignore[misc]
                    listeners, Event(EventKind.WARNING, stage=name, message=text)
                ),
                budget=meter,
            )
            record, was_cached = _run_stage(stage, context, session, listeners, meter)
            outputs[stage.name] = record.outputs
            records[stage.name] = record
            if was_cached:
                cached.add(stage.name)
    # On a cluster most of the work is done by processes that this one cannot see.
    peak = 0 if joins_cluster() else memory.peak_bytes
    result = build_result(context, records, cached, peak)
    publish_result(context, result)
    announce(
        listeners,
        Event(
            EventKind.JOB_FINISHED,
            seconds=time.monotonic() - started,
            message=result["summary"],
            data=result,
        ),
    )
    return result


class LazyRay:
    """Starts Ray when the first stage needs it: a run that finds all done never does."""

    def __init__(self, resources: ExitStack, meter: GpuMeter) -> None:
        self._resources, self._meter = resources, meter
        self._started = False

    def ensure(self) -> None:
        """Starts Ray or joins the cluster, once."""
        if self._started:
            return
        self._resources.enter_context(ray_session())
        self._started = True
        import ray

        self._meter.holds(ray.cluster_resources().get("GPU", 0.0))


class MeteredProgress:
    """The progress report of a stage, which ends it when the GPU time is used up."""

    def __init__(self, report: ProgressReport, stage: StageName, meter: GpuMeter) -> None:
        self._report, self._stage, self._meter = report, stage, meter

    def __call__(self, done: int, total: int, unit: str, **details: Any) -> None:
        """Passes the progress on.

        Raises:
            BudgetError: If the GPU time is used up. Not while training, which ends by itself with a
                checkpoint.
        """
        self._report(done, total, unit, **details)
        self._meter.tick()
        if self._stage is not StageName.TRAIN:
            self._meter.check()


def _run_stage(
    stage: Stage,
    context: StageContext,
    session: LazyRay,
    listeners: Sequence[Listener],
    meter: GpuMeter,
) -> tuple[StageRecord, bool]:
    records = StageRecords(context.folder.stages)
    inputs = digest_of(stage.inputs(context))
    known = records.load(stage.name, inputs)
    if known is not None and stage.intact(context, known.outputs):
        announce(
            listeners,
            Event(
                EventKind.STAGE_FINISHED,
                stage=stage.name,
                cached=True,
                seconds=known.seconds,
                gpu_seconds=known.gpu_seconds,
            ),
        )
        return known, True
    meter.enter(stage.name)
    meter.check()
    spent = meter.of_stage(stage.name)
    announce(listeners, Event(EventKind.STAGE_STARTED, stage=stage.name, gpu_seconds=spent))
    started = time.monotonic()
    if stage.name is not StageName.PHOTOS:
        session.ensure()
    result = stage.run(context)
    seconds = time.monotonic() - started
    meter.enter(None)
    spent = meter.of_stage(stage.name)
    record = StageRecord(inputs, result.outputs, seconds, spent)
    records.save(stage.name, record)
    announce(
        listeners,
        Event(
            EventKind.STAGE_FINISHED,
            stage=stage.name,
            cached=result.cached,
            seconds=seconds,
            gpu_seconds=spent,
        ),
    )
    return record, result.cached


def _base_model(job: Job, space: Workspace) -> BaseModel:
    resolved = resolve(job.model, workspace=space.root, manifest_dir=job.manifest_dir)
    tokenizer = load_tokenizer(resolved.folder)
    token = job.subject.token
    if token is None:
        token = choose_token(tokenizer, job.subject.class_noun)
    else:
        check_token(token, tokenizer, job.subject.class_noun)
    return BaseModel(resolved.folder, resolved.name, resolved.revision, resolved.digest, token)


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
