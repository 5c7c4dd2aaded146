"""Stage 2: pictures of the class, made by the base model, that keep it from forgetting."""

from pathlib import Path
from typing import Any

from dreambooth.pipeline.context import StageContext, StageResult
from dreambooth.pipeline.placement import placement
from dreambooth.pipeline.progress import StageName
from dreambooth.sampling.factory import fill, warm_up
from dreambooth.sampling.picture_set import PictureSet, PictureSetState
from dreambooth.sampling.troupe import troupe
from dreambooth.stages.pictures import base_pictures, base_source, class_sampling


class ClassImagesStage:
    """Fills the shared cache up to the wanted count; only the shortfall is made."""

    name = StageName.CLASS_IMAGES

    def prepare(self, context: StageContext) -> None:
        """Hires who draws, which needs no model to begin with, and warms up who hands out work."""
        where = placement(context.job.cluster.workers)
        troupe.hire(where, where.drawers)
        warm_up()

    def inputs(self, context: StageContext) -> dict[str, Any]:
        """The set's key and the count."""
        pictures = class_pictures(context)
        return {"key": pictures.key, "count": pictures.count}

    def intact(self, context: StageContext, outputs: dict[str, Any]) -> bool:
        """The cache still holds the very pictures."""
        state = PictureSetState(class_pictures(context))
        return state.complete and state.digests == outputs["digests"]

    def run(self, context: StageContext) -> StageResult:
        """Makes what is missing."""
        wanted = class_pictures(context)
        before = PictureSetState(wanted)
        if before.complete:
            state = before
            context.progress(wanted.count, wanted.count, "images")
        else:
            [state] = fill(
                [wanted],
                base_source(context),
                lambda done, total: context.progress(done, total, "images"),
            )
        return StageResult(
            {
                "folder": str(wanted.folder.relative_to(context.workspace.root)),
                "digests": state.digests,
                "files": [file.name for file in state.files],
                "reused": before.present,
                "made": wanted.count - before.present,
                "refused": state.refused,
            },
            cached=before.complete,
        )


def class_pictures(context: StageContext) -> PictureSet:
    """The set of class pictures of this job."""
    wanted = context.job.class_images
    return base_pictures(
        context,
        context.fill_in(wanted.prompt),
        wanted.count or 0,
        wanted.seed,
        class_sampling(context),
        gated=True,
        prompt_field="spec.classImages.prompt",
    )


def class_image_files(context: StageContext) -> list[Path]:
    """The class pictures, in order."""
    outputs = context.outputs[StageName.CLASS_IMAGES]
    folder = context.workspace.root / outputs["folder"]
    return [folder / name for name in outputs["files"]]
