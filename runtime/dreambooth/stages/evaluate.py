"""Stage 5: how good the result is, against a floor and a ceiling."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from dreambooth.errors import UserError
from dreambooth.pipeline.context import StageContext, StageResult
from dreambooth.pipeline.progress import StageName
from dreambooth.sampling.factory import fill
from dreambooth.sampling.picture_set import Flagged, PictureSet, PictureSetState
from dreambooth.spans import Activity, span
from dreambooth.stages.generate import subject_sets, tuned_source
from dreambooth.stages.photos import photo_files
from dreambooth.stages.pictures import (
    base_pictures,
    base_source,
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
# More CPU threads than this gain nothing with pictures of encoders' sizes.
MEASURING_THREADS = 8


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
            base_source(context),
            lambda done, _: context.progress(half + done, total, "images"),
        )
        measured = [_Paired(*states) for states in zip(tuned, base[: len(tuned)], strict=True)]
        quality = _measure(context, measured)
        generated = [PictureSetState(pictures) for pictures in subject_sets(context)]
        shown = [_Paired(*states) for states in zip(generated, base[len(tuned) :], strict=True)]
        with span(Activity.REPORT):
            _draw_contact_sheet(context, shown)
        return StageResult(
            {
                "quality": quality.to_json(),
                "sentence": quality.sentence(context.job.subject.class_noun),
                "baseImages": [
                    {"prompt": pairs.prompt, "files": _in_places(context, pairs)} for pairs in shown
                ],
                "leftOut": {
                    "measured": sum(pairs.left_out for pairs in measured),
                    "contactSheet": sum(pairs.left_out for pairs in shown),
                },
            }
        )


class _Paired:
    """Pictures of the tuned and of the base model from the same noise, by index.

    Where the safety checker has flagged one of the two the other is left out as well.
    """

    def __init__(self, tuned: PictureSetState, base: PictureSetState) -> None:
        """As many as `base` has."""
        ours, theirs = tuned.of_first_noise, base.of_first_noise
        self.prompt, self.wanted = base.set.prompt, base.set.count
        self.pairs = {i: (ours[i], theirs[i]) for i in sorted(ours.keys() & theirs.keys())}

    @property
    def tuned(self) -> list[Path]:
        """Of the tuned model."""
        return [ours for ours, _ in self.pairs.values()]

    @property
    def base(self) -> list[Path]:
        """Of the base model."""
        return [theirs for _, theirs in self.pairs.values()]

    @property
    def left_out(self) -> int:
        """How many pairs are not there."""
        return self.wanted - len(self.pairs)


def _prompts(context: StageContext) -> list[str]:
    wanted = context.job.evaluation.prompts or (context.job.training.prompt,)
    return [context.fill_in(prompt) for prompt in dict.fromkeys(wanted)]


def _tuned_sets(context: StageContext) -> list[PictureSet]:
    """Subject pictures by evaluation prompt, and last the class pictures."""
    job = context.job
    digest = context.outputs[StageName.TRAIN]["digest"]
    count, fresh = job.evaluation.images_per_prompt, FRESH_SEED_OFFSET
    class_prompt = context.fill_in(job.class_images.prompt)
    subject = (job.generation.seed + fresh, generation_sampling(context), _prompts_field(context))
    of_class = (job.class_images.seed + fresh, class_sampling(context), "spec.classImages.prompt")
    return [
        tuned_pictures(
            context,
            context.folder.evaluation,
            prompt,
            count,
            seed,
            settings,
            digest,
            flagged=Flagged.LEFT_OUT,
            prompt_field=field,
        )
        for prompt, (seed, settings, field) in [
            *((prompt, subject) for prompt in _prompts(context)),
            (class_prompt, of_class),
        ]
    ]


def _prompts_field(context: StageContext) -> str:
    return "spec.evaluation.prompts" if context.job.evaluation.prompts else "spec.training.prompt"


def _base_sets(context: StageContext) -> list[PictureSet]:
    """The same pictures by the base model, and after them the contact sheet's."""
    job = context.job
    mirrored = [
        base_pictures(
            context,
            pictures.prompt,
            pictures.count,
            pictures.seed,
            pictures.settings,
            gated=False,
            prompt_field=pictures.prompt_field,
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
            prompt_field=pictures.prompt_field,
        )
        for pictures in subject_sets(context)
    ]
    return mirrored + sheet


def _measure(context: StageContext, measured: Sequence[_Paired]) -> Any:
    *subject, of_class = measured
    _check_enough(subject, _prompts_field(context))
    _check_enough([of_class], "spec.classImages.prompt")
    with span(Activity.IMPORTS):
        import torch

        from dreambooth.quality.encoders import load_encoder
        from dreambooth.quality.metrics import measure_quality
        from dreambooth.sampling.devices import physical_threads

    # Left to itself torch counts the machine's cores, not those that a pod may use, and threads
    # that wait for a core keep all others waiting.
    torch.set_num_threads(min(MEASURING_THREADS, physical_threads()))
    with span(Activity.ENCODER_LOAD):
        encoder = load_encoder(context.job.evaluation.encoder, context.workspace.models)
    prompts = [pairs.prompt for pairs in subject for _ in pairs.tuned]
    with span(Activity.MEASURE):
        quality = measure_quality(
            encoder,
            photos=_open(photo_files(context)),
            tuned=_open([file for pairs in subject for file in pairs.tuned]),
            base=_open([file for pairs in subject for file in pairs.base]),
            prompts=[_without_token(context, prompt) for prompt in prompts],
            tuned_class=_open(of_class.tuned),
            base_class=_open(of_class.base),
        )
    left_out = sum(pairs.left_out for pairs in measured)
    if not left_out:
        return quality
    note = (
        f"{left_out} of the pairs of pictures are left out, because the model's safety checker "
        "flagged one of the two."
    )
    return replace(quality, notes=(*quality.notes, note))


def _check_enough(measured: Sequence[_Paired], field: str) -> None:
    """Refuses to measure nothing."""
    if not any(pairs.pairs for pairs in measured):
        raise UserError(
            "the model's safety checker flagged every picture that would be measured",
            field=field,
            remedy="Change the prompt, or raise spec.evaluation.imagesPerPrompt; if the pictures "
            "are harmless, set spec.model.safetyChecker to disabled.",
            reason="PicturesFlagged",
        )


def _without_token(context: StageContext, prompt: str) -> str:
    """The prompt as an image-text encoder understands it, which never saw the token."""
    token = re.escape(context.model.token)
    return " ".join(re.sub(rf"(?<!\w){token}(?!\w)", " ", prompt).split())


def _draw_contact_sheet(context: StageContext, shown: Sequence[_Paired]) -> None:
    from dreambooth.report.contact_sheet import SheetRow, contact_sheet

    rows = [
        SheetRow(title=pairs.prompt, base=_open(pairs.base), tuned=_open(pairs.tuned))
        for pairs in shown
    ]
    png = contact_sheet(_open(photo_files(context)), rows)
    write_bytes(context.folder.contact_sheet, png)


def _open(files: Sequence[Path]) -> list[Image.Image]:
    pictures = []
    for file in files:
        with Image.open(file) as image:
            pictures.append(image.convert("RGB"))
    return pictures


def _in_places(context: StageContext, pairs: _Paired) -> list[str | None]:
    """The base model's pictures in the places of the tuned one's; None where one is left out."""
    root = context.workspace.root
    files = {i: str(file.relative_to(root)) for i, (_, file) in pairs.pairs.items()}
    return [files.get(i) for i in range(pairs.wanted)]
