"""What the driver asks a training worker to do."""

from dataclasses import dataclass

from dreambooth.sampling.settings import SamplingSettings
from dreambooth.training.settings import TrainerSettings


@dataclass(frozen=True)
class LoraSettings:
    """Rank and scale of the adapters."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class TrainingPlan:
    """Everything a worker needs; plain values, for it travels to other machines.

    Attributes:
        key: Digest of all inputs; checkpoints of another key are not resumed from.
        base_model: Diffusers folder of the base model.
        output: Where the tuned model goes.
        summary: JSON file for what the driver wants to know afterwards.
        class_prompt, prompt: The two prompts, placeholders filled in.
        checkpoint_every: Steps between checkpoints; those that would take longer to write than
            the steps since the last one took are left out.
        sampling: Sampler for the pictures that choose a checkpoint.
        encoder: Name of the image encoder that measures them; None keeps the last checkpoint.
        checker: Diffusers folder whose safety checker the tuned model takes along; None for none.
        owner: Names this training; workers of an earlier one stop writing. None for the only one.
        stop_at: Time of the system's clock to stop at, between two steps, with a checkpoint and the
            model as it is then; None trains to the end.
    """

    key: str
    base_model: str
    output: str
    checkpoints: str
    summary: str
    models_dir: str
    photos: list[str]
    class_images: list[str]
    prompt: str
    class_prompt: str
    steps: int
    batch_size: int
    checkpoint_every: int
    seed: int
    settings: TrainerSettings
    lora: LoraSettings | None
    sampling: SamplingSettings
    encoder: str | None
    checker: str | None = None
    owner: str | None = None
    stop_at: float | None = None
