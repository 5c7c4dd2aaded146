"""Stage 5: how good the result is, against a floor and a ceiling."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dreambooth.pipeline.context import StageContext, StageResult
from dreambooth.pipeline.progress import StageName
from dreambooth.sampling.drawing import ModelSource
from dreambooth.sampling.factory import fill
from dreambooth.sampling.picture_set import PictureSet, PictureSetState
from dreambooth.spans import Activity, span
from dreambooth.stages.generate import subject_sets, tuned_source
from dreambooth.stages.photos import photo_files
from dreambooth.stages.pictures import (
    base_pictures,
    class_sampling,
    generation_sampling,
    tuned_pictures,
)
from dreambooth.workspace.atomic import write_bytes

EVALUATOR_VERSION = 1
# Class pictures that measure drift and diversity start from other noise than those trained on.
FRESH_SEED_OFFSET = 1_000_003
# Columns of the contact sheet.
SHEET_COLUMNS = 4


class EvaluateStage:
    """Quality figures and the contact sheet base | tuned."""

    name = StageName.EVALUATE

    def inputs(self, context: StageContext) -> dict[str, Any]:
        """Everything that is measured, and what it is measured with."""
        job = context.job
        return {
            "photos": context.outputs[StageName.PHOTOS]["photos"],
            "images": context.outputs[StageName.GENERATE]["digests"],
            "sets": [
                [pictures.key, pictures.count]
                for pictures in [*_tuned_sets(context), *_base_sets(context)]
            ],
            "encoder": job.evaluation.encoder,
            "version": EVALUATOR_VERSION,
        }

    def intact(self, context: StageContext, outputs: dict[str, Any]) -> bool:
        """The contact sheet is there; the figures are in the record itself."""
        return context.folder.contact_sheet.is_file()

    def run(self, context: StageContext) -> StageResult:
        """Makes the pictures that are missing, measures, draws the contact sheet."""
        tuned_sets, base_sets = _tuned_sets(context), _base_sets(context)
        total = sum(pictures.count for pictures in [*tuned_sets, *base_sets])
        half = sum(pictures.count for pictures in tuned_sets)
        tuned = fill(
            tuned_sets,
            tuned_source(context),
            lambda done, _: context.progress(done, total, "images"),
        )
        base = fill(
            base_sets,
            ModelSource(str(context.model.folder)),
            lambda done, _: context.progress(half + done, total, "images"),
        )
        quality = _measure(context, tuned, base)
        with span(Activity.REPORT):
            _draw_contact_sheet(context, base[len(tuned) :])
        return StageResult(
            {
                "quality": quality.to_json(),
                "sentence": quality.sentence(context.job.subject.class_noun),
                "baseImages": [
                    {"prompt": state.set.prompt, "files": _relative(context, state.files)}
                    for state in base[len(tuned) :]
                ],
            }
        )


def _prompts(context: StageContext) -> list[str]:
    wanted = context.job.evaluation.prompts or (context.job.training.prompt,)
    return [context.fill_in(prompt) for prompt in dict.fromkeys(wanted)]


def _tuned_sets(context: StageContext) -> list[PictureSet]:
    """Subject pictures by evaluation prompt, and last the class pictures."""
    job = context.job
    digest = context.outputs[StageName.TRAIN]["digest"]
    count, seed = job.evaluation.images_per_prompt, job.generation.seed + FRESH_SEED_OFFSET
    parent = context.folder.evaluation
    sets = [
        tuned_pictures(context, parent, prompt, count, seed, generation_sampling(context), digest)
        for prompt in _prompts(context)
    ]
    class_prompt = context.fill_in(job.class_images.prompt)
    fresh = job.class_images.seed + FRESH_SEED_OFFSET
    sets.append(
        tuned_pictures(context, parent, class_prompt, count, fresh, class_sampling(context), digest)
    )
    return sets


def _base_sets(context: StageContext) -> list[PictureSet]:
    """The same pictures by the base model, and after them the contact sheet's."""
    job = context.job
    mirrored = [
        base_pictures(
            context, pictures.prompt, pictures.count, pictures.seed, pictures.settings, gated=False
        )
        for pictures in _tuned_sets(context)
    ]
    sheet = [
        base_pictures(
            context,
            pictures.prompt,
            min(pictures.count, SHEET_COLUMNS),
            job.generation.seed,
            pictures.settings,
            gated=False,
        )
        for pictures in subject_sets(context)
    ]
    return mirrored + sheet


def _measure(
    context: StageContext, tuned: Sequence[PictureSetState], base: Sequence[PictureSetState]
) -> Any:
    with span(Activity.IMPORTS):
        from dreambooth.quality.encoders import load_encoder
        from dreambooth.quality.metrics import measure_quality

    with span(Activity.ENCODER_LOAD):
        encoder = load_encoder(context.job.evaluation.encoder, context.workspace.models)
    *tuned_subject, tuned_class = tuned
    *base_subject, base_class = base[: len(tuned)]
    prompts = [state.set.prompt for state in tuned_subject for _ in state.files]
    with span(Activity.MEASURE):
        return measure_quality(
            encoder,
            photos=_open(photo_files(context)),
            tuned=_open([file for state in tuned_subject for file in state.files]),
            base=_open([file for state in base_subject for file in state.files]),
            prompts=[_without_token(context, prompt) for prompt in prompts],
            tuned_class=_open(tuned_class.files),
            base_class=_open(base_class.files),
        )


def _without_token(context: StageContext, prompt: str) -> str:
    """The prompt as an image-text encoder understands it, which never saw the token."""
    token = re.escape(context.model.token)
    return " ".join(re.sub(rf"(?<!\w){token}(?!\w)", " ", prompt).split())


def _draw_contact_sheet(context: StageContext, base: Sequence[PictureSetState]) -> None:
    from dreambooth.report.contact_sheet import SheetRow, contact_sheet

    tuned = [PictureSetState(pictures) for pictures in subject_sets(context)]
    rows = [
        SheetRow(
            title=tuned_state.set.prompt,
            base=_open(base_state.files),
            tuned=_open(tuned_state.files[:SHEET_COLUMNS]),
        )
        for tuned_state, base_state in zip(tuned, base, strict=True)
    ]
    png = contact_sheet(_open(photo_files(context)), rows)
    write_bytes(context.folder.contact_sheet, png)


def _open(files: Sequence[Path]) -> list[Image.Image]:
    pictures = []
    for file in files:
        with Image.open(file) as image:
            pictures.append(image.convert("RGB"))
    return pictures


def _relative(context: StageContext, files: Sequence[Path]) -> list[str]:
    return [str(file.relative_to(context.workspace.root)) for file in files]
