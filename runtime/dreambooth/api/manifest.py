"""From a manifest to a `Job`: read, fill in defaults, validate, convert."""

from pathlib import Path
from typing import Any

from dreambooth.api import crd
from dreambooth.api.cel import rule_problems
from dreambooth.api.document import read_document
from dreambooth.api.job import (
    ClassImages,
    Cluster,
    Evaluation,
    Generation,
    HubPhotos,
    Job,
    Lora,
    ModelRef,
    Photos,
    Subject,
    Training,
)
from dreambooth.api.problems import Problem, error_of
from dreambooth.api.schema import schema_problems
from dreambooth.errors import UserError

DEFAULT_LORA_RANK = 8
DEFAULT_NAMESPACE = "default"

# The API server checks metadata by itself; what matters here is the name, and that fields exist.
_TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "description": "Give the job a name, such as rex."},
        "namespace": {"type": "string", "minLength": 1, "maxLength": 63},
        "labels": _TEXTS,
        "annotations": _TEXTS,
        "uid": {
            "type": "string",
            "minLength": 1,
            "maxLength": 63,
            "pattern": "^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$",
        },
        # Set by the API server: a manifest that kubectl printed has them.
        "creationTimestamp": {},
        "deletionGracePeriodSeconds": {},
        "deletionTimestamp": {},
        "finalizers": {},
        "generateName": {},
        "generation": {},
        "managedFields": {},
        "ownerReferences": {},
        "resourceVersion": {},
        "selfLink": {},
    },
}


def load_job(path: Path) -> Job:
    """The job that the manifest file describes.

    Raises:
        UserError: The file cannot be read, or what it says cannot be done; all problems at once.
    """
    return parse_job(read_document(path), str(path), path.resolve().parent)


def parse_job(document: dict[str, Any], source: str, manifest_dir: Path) -> Job:
    """The job that the document describes.

    Args:
        document: The manifest; it is not changed.
        source: Where it is from, for messages.
        manifest_dir: The folder that paths may be relative to.

    Raises:
        UserError: What the document says cannot be done; all problems at once.
    """
    _check_kind(document, source)
    # What the operator wrote is no input.
    wanted = {name: value for name, value in document.items() if name != "status"}
    defaulted = crd.with_defaults(wanted, crd.job_schema())
    if problems := find_problems(defaulted):
        raise error_of(problems, source)
    return _to_job(defaulted, manifest_dir)


def find_problems(document: dict[str, Any]) -> list[Problem]:
    """Everything that is wrong with a document of the right kind, defaults filled in."""
    schema = crd.job_schema()
    found = schema_problems(document, schema)
    # The API's schema leaves metadata to the server.
    found = [problem for problem in found if problem.path[:1] != ("metadata",)]
    found += schema_problems(document.get("metadata", {}), _METADATA_SCHEMA, ("metadata",))
    return found + rule_problems(document, schema, found)


def update_problems(old: dict[str, Any], new: dict[str, Any]) -> list[Problem]:
    """What is wrong with changing one document into the other, as the API server judges it."""
    schema = crd.job_schema()
    before, after = crd.with_defaults(old, schema), crd.with_defaults(new, schema)
    found = schema_problems(after, schema)
    return found + rule_problems(after, schema, found, old=before)


def _check_kind(document: dict[str, Any], source: str) -> None:
    version, kind = crd.api_version(), crd.kind()
    remedy = f"Give a manifest that begins with apiVersion: {version} and kind: {kind}."
    for name, wanted in (("kind", kind), ("apiVersion", version)):
        found = document.get(name)
        if found is None:
            raise UserError(
                f"{source} has no {name}", field=name, remedy=remedy, reason="InvalidManifest"
            )
        if found != wanted:
            raise UserError(
                f"{source} has {name} {found}", field=name, remedy=remedy, reason="InvalidManifest"
            )


def _to_job(document: dict[str, Any], manifest_dir: Path) -> Job:
    metadata, spec = document["metadata"], document["spec"]
    return Job(
        name=metadata["name"],
        namespace=metadata.get("namespace", DEFAULT_NAMESPACE),
        uid=metadata.get("uid"),
        subject=_subject(spec["subject"]),
        model=_model(spec["model"]),
        class_images=_class_images(spec["classImages"]),
        training=_training(spec["training"]),
        generation=_generation(spec["generation"]),
        evaluation=Evaluation(
            encoder=spec["evaluation"]["encoder"],
            prompts=tuple(spec["evaluation"].get("prompts", ())),
            images_per_prompt=spec["evaluation"]["imagesPerPrompt"],
        ),
        cluster=Cluster(pool=spec["cluster"].get("pool"), workers=spec["cluster"]["workers"]),
        manifest=document,
        manifest_dir=manifest_dir,
    )


def _subject(subject: dict[str, Any]) -> Subject:
    photos = subject["photos"]
    hub = photos.get("hub")
    return Subject(
        class_noun=subject["class"],
        token=subject.get("token"),
        photos=Photos(
            path=photos.get("path"),
            hub=HubPhotos(hub["repo"], hub["revision"], hub.get("path")) if hub else None,
            uri=photos.get("uri"),
            config_map=photos.get("configMap", {}).get("name"),
            secret=photos.get("secret", {}).get("name"),
        ),
    )


def _model(model: dict[str, Any]) -> ModelRef:
    return ModelRef(
        builtin=model.get("builtin"),
        path=model.get("path"),
        repo=model.get("repo"),
        revision=model.get("revision"),
        safety_checker=model["safetyChecker"],
    )


def _class_images(images: dict[str, Any]) -> ClassImages:
    return ClassImages(
        count=images.get("count"),
        prompt=images["prompt"],
        negative_prompt=images.get("negativePrompt"),
        steps=images.get("steps"),
        guidance=_number(images.get("guidance")),
        scheduler=images.get("scheduler"),
        seed=images["seed"],
    )


def _training(training: dict[str, Any]) -> Training:
    lora = training.get("lora", {})
    rank = lora.get("rank", DEFAULT_LORA_RANK)
    return Training(
        method=training.get("method"),
        prompt=training["prompt"],
        steps=training.get("steps"),
        batch_size=training.get("batchSize"),
        learning_rate=_number(training.get("learningRate")),
        learning_rate_schedule=training.get("learningRateSchedule"),
        prior_weight=float(training["priorWeight"]),
        text_encoder=training.get("textEncoder"),
        gradient_clip=float(training["gradientClip"]),
        seed=training["seed"],
        lora=Lora(rank=rank, alpha=float(lora.get("alpha", rank))),
        checkpoint_every=training.get("checkpointEvery"),
        keep=training["keep"],
    )


def _generation(generation: dict[str, Any]) -> Generation:
    return Generation(
        prompts=tuple(generation["prompts"]),
        images_per_prompt=generation["imagesPerPrompt"],
        negative_prompt=generation.get("negativePrompt"),
        steps=generation.get("steps"),
        guidance=_number(generation.get("guidance")),
        scheduler=generation.get("scheduler"),
        seed=generation["seed"],
    )


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
