"""What the picture-making stages share: which set a prompt's pictures belong to."""

import re
from pathlib import Path
from typing import Any

from dreambooth.pipeline.context import StageContext
from dreambooth.sampling.drawing import ModelSource
from dreambooth.sampling.picture_set import Flagged, PictureSet
from dreambooth.sampling.settings import BATCH_SIZE, SamplingSettings
from dreambooth.workspace.digest import digest_of

# Part of every key. Raised when a change to the sampler changes pixels.
SAMPLER_VERSION = 2


def class_sampling(context: StageContext) -> SamplingSettings:
    """The sampler of class pictures."""
    wanted = context.job.class_images
    return _settings(wanted.scheduler, wanted.steps, wanted.guidance, wanted.negative_prompt)


def generation_sampling(context: StageContext) -> SamplingSettings:
    """The sampler of pictures of the subject."""
    wanted = context.job.generation
    return _settings(wanted.scheduler, wanted.steps, wanted.guidance, wanted.negative_prompt)


def base_source(context: StageContext) -> ModelSource:
    """The base model as actors load it."""
    return ModelSource(str(context.model.folder), checker=checker_folder(context))


def checker_folder(context: StageContext) -> str | None:
    """Where actors find the safety checker of this job; None if nothing is checked."""
    return str(context.model.folder) if context.model.checker else None


def base_pictures(
    context: StageContext,
    prompt: str,
    count: int,
    seed: int,
    settings: SamplingSettings,
    *,
    gated: bool,
    prompt_field: str,
) -> PictureSet:
    """Pictures of the base model: in the cache that jobs share, under the digest of their key.

    Those that are not gated stand beside pictures of the tuned model from the same noise, so that
    no other seed can take the place of one that is flagged.
    """
    key = _key(context, context.model.digest, prompt, seed, settings) | {"gated": gated}
    return PictureSet(
        context.workspace.pictures / digest_of(key),
        key,
        prompt,
        seed,
        count,
        settings,
        gated,
        prompt_field,
        flagged=Flagged.REDRAWN if gated else Flagged.LEFT_OUT,
        provenance={"model": context.model.name, "revision": context.model.revision},
    )


def tuned_pictures(
    context: StageContext,
    parent: Path,
    prompt: str,
    count: int,
    seed: int,
    settings: SamplingSettings,
    tuned_digest: str,
    *,
    flagged: Flagged,
    prompt_field: str,
) -> PictureSet:
    """Pictures of the tuned model: in the job's folder, under a readable name."""
    provenance = {
        "model": tuned_digest,
        "baseModel": context.model.name,
        "job": context.job.name,
    }
    return PictureSet(
        parent / slug(prompt),
        _key(context, tuned_digest, prompt, seed, settings),
        prompt,
        seed,
        count,
        settings,
        gated=False,
        prompt_field=prompt_field,
        flagged=flagged,
        provenance=provenance,
    )


def slug(prompt: str) -> str:
    """A folder name for a prompt: readable, and different for different prompts."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].strip("-")
    return f"{words or 'prompt'}-{digest_of(prompt)[:6]}"


def _key(
    context: StageContext, model: str, prompt: str, seed: int, settings: SamplingSettings
) -> dict[str, Any]:
    """What determines the pixels, and which of the pictures are kept.

    On CPUs with the same instructions bit for bit, with the size of their batches. What depends on
    the device (its arithmetic, and on GPUs a batch that fits their memory) is left out: it moves
    pixels by a rounding, and pictures that one GPU drew shall serve a job on another.
    """
    checker = {"checker": context.model.checker} if context.model.checker else {}
    return checker | {
        "model": model,
        "prompt": prompt,
        "seed": seed,
        "sampler": settings.to_json(),
        "batch": BATCH_SIZE,
        "version": SAMPLER_VERSION,
    }


def _settings(
    scheduler: str | None, steps: int | None, guidance: float | None, negative: str | None
) -> SamplingSettings:
    if steps is None or guidance is None:
        raise ValueError("the job's settings have not been resolved")
    return SamplingSettings(scheduler, steps, guidance, negative)
