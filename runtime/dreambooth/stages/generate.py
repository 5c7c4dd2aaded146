"""Stage 4: pictures of the subject, prompt by prompt."""

from typing import Any

from dreambooth.pipeline.context import StageContext, StageResult
from dreambooth.pipeline.progress import StageName
from dreambooth.sampling.drawing import ModelSource
from dreambooth.sampling.factory import fill
from dreambooth.sampling.picture_set import Flagged, PictureSet, PictureSetState
from dreambooth.stages.pictures import checker_folder, generation_sampling, tuned_pictures


class GenerateStage:
    """`imagesPerPrompt` pictures for each prompt, in `images/`."""

    name = StageName.GENERATE

    def inputs(self, context: StageContext) -> dict[str, Any]:
        """The sets' keys, which hold the tuned model's digest, and the count."""
        return {
            "sets": [pictures.key for pictures in subject_sets(context)],
            "count": context.job.generation.images_per_prompt,
        }

    def intact(self, context: StageContext, outputs: dict[str, Any]) -> bool:
        """All pictures are there with their digests."""
        states = [PictureSetState(pictures) for pictures in subject_sets(context)]
        return bool([state.digests for state in states] == outputs["digests"])

    def run(self, context: StageContext) -> StageResult:
        """Makes what is missing."""
        states = fill(
            subject_sets(context),
            tuned_source(context),
            lambda done, total: context.progress(done, total, "images"),
        )
        return StageResult(
            {
                "images": [
                    {
                        "prompt": state.set.prompt,
                        "files": [
                            str(file.relative_to(context.folder.root)) for file in state.files
                        ],
                        "refused": state.refused,
                    }
                    for state in states
                ],
                "digests": [state.digests for state in states],
            }
        )


def subject_sets(context: StageContext) -> list[PictureSet]:
    """One set a prompt."""
    wanted = context.job.generation
    return [
        tuned_pictures(
            context,
            context.folder.images,
            context.fill_in(prompt),
            wanted.images_per_prompt,
            wanted.seed,
            generation_sampling(context),
            context.outputs[StageName.TRAIN]["digest"],
            flagged=Flagged.REDRAWN,
            prompt_field="spec.generation.prompts",
        )
        for prompt in dict.fromkeys(wanted.prompts)
    ]


def tuned_source(context: StageContext) -> ModelSource:
    """The tuned model as actors load it."""
    folder, checker = str(context.folder.model), checker_folder(context)
    if context.outputs[StageName.TRAIN]["lora"]:
        return ModelSource(str(context.model.folder), lora=folder, checker=checker)
    return ModelSource(folder, checker=checker)
