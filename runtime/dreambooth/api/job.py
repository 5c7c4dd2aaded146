"""A DreamBoothJob after validation and defaulting, as plain values.

Field names are those of the manifest in snake_case; `crds/dreamboothjobs.yaml` documents each.
`None` means "chosen for the model's family at run time" (see `models/defaults.py`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class HubPhotos:
    """Photos of a hub data set; `path` is a folder inside the repository."""

    repo: str
    revision: str
    path: str | None = None


@dataclass(frozen=True)
class Photos:
    """Where the photos are. Exactly one source is set (the API refuses anything else)."""

    path: str | None = None
    hub: HubPhotos | None = None
    uri: str | None = None
    config_map: str | None = None
    secret: str | None = None


@dataclass(frozen=True)
class Subject:
    """What is personalised: a class noun, an optional identifier token and the photos."""

    class_noun: str
    photos: Photos
    token: str | None = None


@dataclass(frozen=True)
class ModelRef:
    """The base model. Exactly one of `builtin`, `path` and `repo` is set."""

    builtin: str | None = None
    path: str | None = None
    repo: str | None = None
    revision: str | None = None
    safety_checker: Literal["auto", "disabled"] = "auto"


@dataclass(frozen=True)
class ClassImages:
    """Pictures of the class, made by the base model, for the prior-preservation loss."""

    count: int | None
    prompt: str
    negative_prompt: str | None
    steps: int | None
    guidance: float | None
    scheduler: str | None
    seed: int


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation; `alpha` defaults to `rank`."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class Training:
    """Fine-tuning. `batch_size` counts pairs of one photo and one class image an optimizer step."""

    method: Literal["full", "lora"] | None
    prompt: str
    steps: int | None
    batch_size: int | None
    learning_rate: float | None
    learning_rate_schedule: Literal["constant", "cosine"] | None
    prior_weight: float
    text_encoder: bool | None
    gradient_clip: float
    seed: int
    lora: Lora
    checkpoint_every: int | None
    keep: Literal["best", "last"]


@dataclass(frozen=True)
class Generation:
    """Pictures of the subject to make with the tuned model."""

    prompts: tuple[str, ...]
    images_per_prompt: int
    negative_prompt: str | None
    steps: int | None
    guidance: float | None
    scheduler: str | None
    seed: int


@dataclass(frozen=True)
class Evaluation:
    """How quality is measured; `encoder` "auto" follows the model (see docs/quality.md)."""

    encoder: str
    prompts: tuple[str, ...]
    images_per_prompt: int


@dataclass(frozen=True)
class Cluster:
    """Named pool of the administrator and how many workers train."""

    pool: str | None
    workers: int


@dataclass(frozen=True)
class Job:
    """One validated job. `manifest` is the defaulted document this was read from."""

    name: str
    namespace: str
    uid: str | None
    subject: Subject
    model: ModelRef
    class_images: ClassImages
    training: Training
    generation: Generation
    evaluation: Evaluation
    cluster: Cluster
    manifest: dict[str, Any]
    manifest_dir: Path

    @property
    def id(self) -> str:
        """Folder name on the workspace: the name, and the uid where a cluster gave one."""
        return f"{self.name}-{self.uid}" if self.uid else self.name
