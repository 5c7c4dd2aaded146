"""Defaults that belong to a model family, and the job with every one of them filled in.

The manifest leaves them out; `resolve_settings` fills them in once, and the result is what the
stages read, what their digests cover, and what the report and the status show as `resolved`.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from dreambooth.api.job import Job
from dreambooth.models.samplers import check_flow_sampler

_T = TypeVar("_T")


@dataclass(frozen=True)
class FamilyDefaults:
    """What a user gets who leaves everything out.

    Attributes:
        class_images: Number of class pictures for the prior-preservation loss.
        scheduler: Sampler; None keeps the model's own.
        sampling_steps: Denoising steps an image.
        guidance: Classifier-free guidance scale of the subject's pictures.
        class_guidance: And of the class pictures; 1 is none.
        method: How the model is trained.
        text_encoder: Whether its text encoders are, too.
        training_steps: Optimizer steps.
        batch_size: Pairs an optimizer step.
        learning_rate: For full fine-tuning.
        lora_learning_rate: For LoRA.
        learning_rate_schedule: How the rate goes on from there.
        checkpoints: Into how many parts checkpoints cut the training.
        encoder: Image encoder that quality is measured with.
        flow_matching: Whether the model is one, which few samplers are for.
    """

    class_images: int
    scheduler: str | None
    sampling_steps: int
    guidance: float
    class_guidance: float
    method: Literal["full", "lora"]
    text_encoder: bool
    training_steps: int
    batch_size: int
    learning_rate: float
    lora_learning_rate: float
    learning_rate_schedule: Literal["constant", "cosine"]
    checkpoints: int
    encoder: str
    flow_matching: bool = False


STABLE_DIFFUSION = FamilyDefaults(
    # The published notebook's numbers: 200 class images, 50 PNDM steps at 7.5, 400 steps at 5e-6.
    class_images=200,
    scheduler=None,
    sampling_steps=50,
    guidance=7.5,
    class_guidance=7.5,
    method="full",
    text_encoder=True,
    training_steps=400,
    batch_size=2,
    learning_rate=5e-6,
    lora_learning_rate=1e-4,
    learning_rate_schedule="constant",
    checkpoints=4,
    encoder="dino-vits16",
)

STABLE_DIFFUSION_XL = FamilyDefaults(
    # diffusers' defaults of the pipeline, and of its DreamBooth example for LoRA. Full training of
    # three and a half thousand million parameters is for the largest cards, so it has to be asked
    # for; its rate is that of diffusers' example for fine-tuning SDXL.
    class_images=200,
    scheduler=None,
    sampling_steps=50,
    guidance=5.0,
    class_guidance=5.0,
    method="lora",
    text_encoder=False,
    training_steps=500,
    batch_size=1,
    learning_rate=1e-6,
    lora_learning_rate=1e-4,
    learning_rate_schedule="constant",
    checkpoints=4,
    encoder="dino-vits16",
)

STABLE_DIFFUSION_3 = FamilyDefaults(
    # The same; the rate of full training is a careful guess.
    class_images=200,
    scheduler=None,
    sampling_steps=28,
    guidance=7.0,
    class_guidance=7.0,
    method="lora",
    text_encoder=False,
    training_steps=500,
    batch_size=1,
    learning_rate=1e-5,
    lora_learning_rate=4e-4,
    learning_rate_schedule="constant",
    checkpoints=4,
    encoder="dino-vits16",
    flow_matching=True,
)

EMOJI = FamilyDefaults(
    # A model of sixteen million parameters takes a rate eighty times that of Stable Diffusion.
    # Class images without guidance show what the model itself believes: learning them again
    # changes nothing, while guided ones would teach it to be less varied. docs/quality.md has the
    # runs these were chosen by.
    class_images=40,
    scheduler="dpmsolver++",
    sampling_steps=20,
    guidance=3.0,
    class_guidance=1.0,
    method="full",
    text_encoder=True,
    training_steps=300,
    batch_size=4,
    learning_rate=4e-4,
    lora_learning_rate=4e-3,
    learning_rate_schedule="cosine",
    checkpoints=4,
    encoder="efficientnet-lite0",
)


# By the class of diffusers' pipeline.
FAMILIES = {
    "StableDiffusionPipeline": STABLE_DIFFUSION,
    "StableDiffusionXLPipeline": STABLE_DIFFUSION_XL,
    "StableDiffusion3Pipeline": STABLE_DIFFUSION_3,
}


def defaults_for(job: Job, pipeline: str | None = None) -> FamilyDefaults:
    """The defaults of the family of the job's base model.

    A model given by path is measured with the encoder that needs no download, because a path is
    how people without a network bring a model.

    Args:
        job: Says which model.
        pipeline: What it turned out to be; taken for Stable Diffusion as long as that is not known.
    """
    if job.model.builtin is not None:
        return EMOJI
    family = FAMILIES[pipeline] if pipeline is not None else STABLE_DIFFUSION
    if job.model.path is not None:
        return replace(family, encoder="efficientnet-lite0")
    return family


def resolve_settings(job: Job, pipeline: str | None = None) -> Job:
    """The job with every default of its model family filled in; idempotent.

    Args:
        job: As the manifest says.
        pipeline: The class of the model's pipeline, once it is known.

    Raises:
        UserError: If the manifest asks for what the family cannot do.
    """
    family = defaults_for(job, pipeline)
    if family.flow_matching:
        check_flow_sampler(job.class_images.scheduler, field="spec.classImages.scheduler")
        check_flow_sampler(job.generation.scheduler, field="spec.generation.scheduler")
    training = job.training
    method = _first(training.method, family.method)
    steps = training.steps if training.steps is not None else family.training_steps
    rate = training.learning_rate
    if rate is None:
        rate = family.lora_learning_rate if method == "lora" else family.learning_rate
    every = training.checkpoint_every or max(1, -(-steps // family.checkpoints))
    return replace(
        job,
        class_images=replace(
            job.class_images,
            count=_first(job.class_images.count, family.class_images),
            steps=_first(job.class_images.steps, family.sampling_steps),
            guidance=_first(job.class_images.guidance, family.class_guidance),
            scheduler=_first(job.class_images.scheduler, family.scheduler),
        ),
        training=replace(
            training,
            method=method,
            text_encoder=_first(training.text_encoder, family.text_encoder),
            steps=steps,
            batch_size=_first(training.batch_size, _shared(family.batch_size, job)),
            learning_rate=rate,
            learning_rate_schedule=_first(
                training.learning_rate_schedule, family.learning_rate_schedule
            ),
            checkpoint_every=every,
        ),
        generation=replace(
            job.generation,
            steps=_first(job.generation.steps, family.sampling_steps),
            guidance=_first(job.generation.guidance, family.guidance),
            scheduler=_first(job.generation.scheduler, family.scheduler),
        ),
        evaluation=replace(
            job.evaluation,
            encoder=family.encoder if job.evaluation.encoder == "auto" else job.evaluation.encoder,
        ),
    )


def _shared(batch_size: int, job: Job) -> int:
    """`batch_size`, raised until the workers can share it evenly."""
    workers = job.cluster.workers
    return -(-batch_size // workers) * workers


def _first(value: _T | None, default: _T) -> _T:
    return default if value is None else value
