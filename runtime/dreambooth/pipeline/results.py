"""What a finished job says of itself: `result.json`, `report.html` and one sentence."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import dreambooth
from dreambooth.api.job import Job
from dreambooth.pipeline.context import BaseModel, StageContext
from dreambooth.pipeline.progress import StageName
from dreambooth.pipeline.records import StageRecord
from dreambooth.workspace.atomic import write_json, write_text
from dreambooth.workspace.digest import digest_of, file_digest

REPORTED_PACKAGES = ("torch", "ray", "diffusers", "transformers", "peft", "safetensors", "pillow")


def resolved_settings(job: Job, model: BaseModel) -> dict[str, Any]:
    """Every setting as it is used, defaults of the model family included, for people and status."""
    training, sampling, generation = job.training, job.class_images, job.generation
    return {
        "token": model.token,
        "model": model.name,
        "modelRevision": model.revision,
        "modelDigest": model.digest,
        "pipeline": model.pipeline,
        "safetyChecker": model.checker or "none",
        "classImages": {
            "count": sampling.count,
            "prompt": sampling.prompt,
            "scheduler": sampling.scheduler or "the model's own",
            "steps": sampling.steps,
            "guidance": sampling.guidance,
        },
        "training": {
            "method": training.method,
            "steps": training.steps,
            "batchSize": training.batch_size,
            "learningRate": training.learning_rate,
            "learningRateSchedule": training.learning_rate_schedule,
            "priorWeight": training.prior_weight,
            "textEncoder": training.text_encoder,
            "checkpointEvery": training.checkpoint_every,
            "keep": training.keep,
            "workers": job.cluster.workers,
        },
        "generation": {
            "scheduler": generation.scheduler or "the model's own",
            "steps": generation.steps,
            "guidance": generation.guidance,
        },
        "encoder": job.evaluation.encoder,
    }


def build_result(
    context: StageContext,
    records: dict[StageName, StageRecord],
    cached: set[StageName],
    peak_memory_bytes: int,
    timeline: dict[str, Any],
) -> dict[str, Any]:
    """The content of `result.json`; of this run's `timeline` only the sums."""
    folder, root = context.folder, context.workspace.root
    train = records[StageName.TRAIN].outputs
    evaluate = records[StageName.EVALUATE].outputs
    generate = records[StageName.GENERATE].outputs
    photos = records[StageName.PHOTOS].outputs
    class_images = records[StageName.CLASS_IMAGES].outputs
    return {
        "name": context.job.name,
        "summary": evaluate["sentence"],
        "resolved": _with_engine(resolved_settings(context.job, context.model), train),
        "manifest": context.job.manifest,
        "stages": [
            {
                "name": stage.value,
                "seconds": round(record.seconds, 2),
                "gpuSeconds": round(record.gpu_seconds, 2),
                "cached": stage in cached,
            }
            for stage, record in records.items()
        ],
        "photos": {"accepted": photos["photos"], "report": photos["report"]},
        "classImages": {
            "folder": class_images["folder"],
            "count": len(class_images["digests"]),
            "made": class_images["made"],
            "reused": class_images["reused"],
            "refused": class_images["refused"],
            "digest": digest_of(class_images["digests"]),
        },
        "training": {
            "losses": train["losses"],
            "keptStep": train["keptStep"],
            "selection": train["selection"],
            "trainedParameters": train["trainedParameters"],
        },
        "images": generate["images"],
        "baseImages": evaluate["baseImages"],
        "leftOut": evaluate.get("leftOut", {}),
        "quality": evaluate["quality"],
        "peakMemoryBytes": peak_memory_bytes,
        "timeline": {key: value for key, value in timeline.items() if key != "spans"},
        "outputs": {
            "folder": str(folder.root.relative_to(root)),
            "model": folder.model.name,
            "images": folder.images.name,
            "contactSheet": folder.contact_sheet.name,
            "report": folder.report.name,
            "timeline": folder.timeline.name,
            "modelDigest": train["digest"],
            "imagesDigest": digest_of(generate["digests"]),
            "contactSheetDigest": file_digest(folder.contact_sheet),
        },
        "versions": versions(),
    }


def _with_engine(settings: dict[str, Any], train: dict[str, Any]) -> dict[str, Any]:
    """Adds what was found out only on the device: how training computes, and fits into memory."""
    training = {**settings["training"], "engine": train.get("engine", {})}
    return {**settings, "training": training}


def publish_result(context: StageContext, result: dict[str, Any]) -> None:
    """Writes the report and, last, `result.json`."""
    from dreambooth.report.html import render_report

    folder = context.folder
    write_text(folder.report, render_report(result, folder.root, context.workspace.root))
    write_json(folder.result, result)


def versions() -> dict[str, str]:
    """Versions of ourselves, Python and the packages that decide about the numbers."""
    found = {"dreambooth": dreambooth.__version__, "python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
