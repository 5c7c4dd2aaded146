"""How much of a job is done, and how long the rest takes.

Stages differ too much to count them. What nearly all of the time goes into is passes of pictures
through the denoiser, and the manifest says how many each stage needs; how long a pass takes is
measured as soon as something runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dreambooth.api.job import Job
from dreambooth.pipeline.progress import StageName

# A training step goes forward, and backward at about twice the cost.
TRAINING_PASSES = 3
# Fetching and preparing photos, as a share of all other work.
PHOTOS_SHARE = 0.01
# The contact sheet has at most this many pictures of the base model a prompt.
SHEET_COLUMNS = 4


@dataclass(frozen=True)
class WorkPlan:
    """What a job consists of: passes through the denoiser, by stage."""

    passes: Mapping[StageName, float]

    @classmethod
    def of(cls, job: Job) -> "WorkPlan":
        """The plan of a job whose settings have been resolved."""
        drawing, generation = job.class_images, job.generation
        class_picture = _picture(drawing.steps, drawing.guidance)
        subject_picture = _picture(generation.steps, generation.guidance)
        training = job.training
        prompts = len(set(generation.prompts))
        measured = len(set(job.evaluation.prompts)) or 1
        each = job.evaluation.images_per_prompt
        passes = {
            StageName.CLASS_IMAGES: (drawing.count or 0) * class_picture,
            StageName.TRAIN: (
                (training.steps or 0) * (training.batch_size or 1) * 2 * TRAINING_PASSES
                / job.cluster.workers
            ),
            StageName.GENERATE: prompts * generation.images_per_prompt * subject_picture,
            # By the tuned model and by the base model, and the base model's half of the sheet.
            StageName.EVALUATE: (
                2 * each * (measured * subject_picture + class_picture)
                + prompts * min(generation.images_per_prompt, SHEET_COLUMNS) * subject_picture
            ),
        }  # fmt: skip
        return cls({StageName.PHOTOS: sum(passes.values()) * PHOTOS_SHARE, **passes})


def _picture(steps: int | None, guidance: float | None) -> float:
    """Passes of one picture; guidance takes a second one at every step."""
    return (steps or 1) * (2 if (guidance or 1.0) > 1.0 else 1)


class Estimate:
    """Follows a job through its plan."""

    def __init__(self, plan: WorkPlan) -> None:
        self._plan = plan
        self._share: dict[StageName, float] = {stage: 0.0 for stage in StageName}
        # Seconds a pass, as last measured.
        self._pace: float | None = None

    def progressed(self, stage: StageName, done: int, total: int, rate: float | None) -> None:
        """`done` of `total` items of a stage are there, `rate` of them come every second."""
        self._share[stage] = min(1.0, done / total) if total > 0 else 0.0
        passes = self._plan.passes[stage]
        if rate and total > 0 and passes > 0 and stage is not StageName.PHOTOS:
            self._pace = total / rate / passes

    def finished(self, stage: StageName) -> None:
        """All of a stage is there."""
        self._share[stage] = 1.0

    @property
    def percent(self) -> int:
        """Share of the whole job, rounded down; a job that is not over never has 100."""
        whole = sum(self._plan.passes.values())
        done = sum(self._plan.passes[stage] * share for stage, share in self._share.items())
        return min(99, int(100 * done / whole)) if whole > 0 else 0

    @property
    def eta_seconds(self) -> int | None:
        """Seconds until the job is done; None as long as nothing has been measured."""
        if self._pace is None:
            return None
        left = sum(self._plan.passes[stage] * (1 - share) for stage, share in self._share.items())
        return round(left * self._pace)
