"""Quality figures on embeddings, after DreamBooth (Ruiz et al., arXiv 2208.12242, section 4.1).

| paper | here |
|---|---|
| DINO, CLIP-I: pictures against photos | `subject_fidelity` |
| CLIP-T: pictures against their prompts | `prompt_fidelity` |
| PRES: class pictures against photos, lower is better | `class_similarity`, `prior_drift` |
| DIV: variety of pictures (the paper's is LPIPS) | `diversity` |

All inputs are `[N, D]` unit vectors of one encoder; all results are cosines or made of cosines. A
figure that the inputs cannot give (one photo has no likeness to itself worth knowing) is NaN here
and missing in `Quality`, which says why.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dreambooth.quality.encoders import Encoder, TextEncoder

# Ceiling minus floor below which shares of the gap would be noise.
MIN_GAP = 0.01
# Within these the class counts as left alone: movement towards the subject as a share of the gap,
# and the share of its diversity that is left.
DRIFT_ALLOWED = 0.10
DIVERSITY_KEPT = 0.90
# Pictures closer to the photos than this share of the gap are more like copies.
COPYING = 1.10
WEAK = 0.33


def subject_fidelity(images: Tensor, photos: Tensor) -> float:
    """Mean cosine over all pairs of a picture and a photo (the paper's DINO or CLIP-I)."""
    return float((images @ photos.T).mean())


def class_similarity(class_images: Tensor, photos: Tensor) -> float:
    """Mean cosine of class pictures to the subject's photos (the paper's PRES; lower is better)."""
    return subject_fidelity(class_images, photos)


def prompt_fidelity(images: Tensor, texts: Tensor) -> float:
    """Mean cosine of each picture to its own prompt (the paper's CLIP-T).

    Args:
        images: `[N, D]`.
        texts: `[N, D]`, row by row the prompts of `images`.
    """
    if images.shape != texts.shape:
        raise ValueError(f"{len(images)} pictures need as many prompts, not {len(texts)}")
    return float((images * texts).sum(dim=-1).mean())


def mutual_similarity(images: Tensor) -> float:
    """Mean cosine over all pairs of different pictures; NaN for fewer than two."""
    count = len(images)
    if count < 2:
        return math.nan
    similarity = images @ images.T
    others = ~torch.eye(count, dtype=torch.bool, device=images.device)
    return float(similarity[others].mean())


def photo_ceiling(photos: Tensor) -> float:
    """How alike the photos are among themselves: what a perfect picture would reach.

    NaN for a single photo.
    """
    return mutual_similarity(photos)


def diversity(images: Tensor) -> float:
    """One minus the pictures' similarity among themselves (higher is more varied)."""
    return 1.0 - mutual_similarity(images)


def gap_closed(fidelity: float, floor: float, ceiling: float) -> float:
    """Share of the way from the base model (0) to the photos themselves (1).

    NaN where floor and ceiling are less than `MIN_GAP` apart.
    """
    return _share(fidelity - floor, floor, ceiling)


def prior_drift(
    before: Tensor, after: Tensor, photos: Tensor, floor: float, ceiling: float
) -> float:
    """How far the class moved towards the subject, as a share of the gap; 0 is best.

    Args:
        before: Class pictures of the base model, `[N, D]`.
        after: Class pictures of the tuned model, `[N, D]`.
        photos: `[M, D]`.
        floor: Subject fidelity of the base model.
        ceiling: The photos among themselves.
    """
    moved = class_similarity(after, photos) - class_similarity(before, photos)
    return _share(moved, floor, ceiling)


def _share(part: float, floor: float, ceiling: float) -> float:
    gap = ceiling - floor
    return part / gap if gap >= MIN_GAP else math.nan


@dataclass(frozen=True)
class Quality:
    """The figures of one job.

    Attributes:
        encoder: What they were measured with; figures of two encoders cannot be compared.
        photos: Number of photos compared with.
        pictures: Number of pictures of the subject, of each model.
        subject_fidelity: Pictures of the tuned model against the photos.
        base_fidelity: The floor: the base model with the same prompts and seeds.
        photo_ceiling: The photos among themselves.
        gap_closed: Share of the way from floor to ceiling.
        class_similarity: Class pictures of the tuned model against the photos.
        base_class_similarity: The same for the base model.
        prior_drift: Their difference as a share of the gap.
        class_diversity: Of the tuned model's class pictures.
        base_class_diversity: Of the base model's.
        diversity: Their ratio: 1 is as varied as before.
        prompt_fidelity: Pictures against their prompts.
        base_prompt_fidelity: The same for the base model.
        notes: Why figures are missing, a sentence each.
    """

    encoder: str
    photos: int
    pictures: int
    subject_fidelity: float
    base_fidelity: float
    photo_ceiling: float | None
    gap_closed: float | None
    class_similarity: float
    base_class_similarity: float
    prior_drift: float | None
    class_diversity: float | None
    base_class_diversity: float | None
    diversity: float | None
    prompt_fidelity: float | None
    base_prompt_fidelity: float | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Under the names of the job's status; figures that are missing are left out."""
        values = {
            "encoder": self.encoder,
            "photos": self.photos,
            "pictures": self.pictures,
            "subjectFidelity": self.subject_fidelity,
            "baseFidelity": self.base_fidelity,
            "photoCeiling": self.photo_ceiling,
            "gapClosed": self.gap_closed,
            "classSimilarity": self.class_similarity,
            "baseClassSimilarity": self.base_class_similarity,
            "priorDrift": self.prior_drift,
            "classDiversity": self.class_diversity,
            "baseClassDiversity": self.base_class_diversity,
            "diversity": self.diversity,
            "promptFidelity": self.prompt_fidelity,
            "basePromptFidelity": self.base_prompt_fidelity,
            "notes": list(self.notes) or None,
        }
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in values.items()
            if value is not None
        }

    def sentence(self, class_noun: str = "picture of the class") -> str:
        """One line that a person understands, the bad news included."""
        return f"{self._subject(class_noun)} {self._figures()}; {self._class(class_noun)}."

    def _subject(self, noun: str) -> str:
        photos = "photo" if self.photos == 1 else "photos"
        closed = self.gap_closed
        if closed is None:
            rise = self.subject_fidelity - self.base_fidelity
            change = "more" if rise > 0 else "no more"
            return f"The pictures look {change} like your {photos} than a generic {noun} does"
        if closed < 0:
            return f"The pictures look less like your {photos} than a generic {noun} does"
        if closed > COPYING:
            return (
                "The pictures look more like your photos than these look like one another, "
                "which can mean copying: check that poses differ"
            )
        only = "only " if closed < WEAK else ""
        return (
            f"The pictures look {only}{_percent(closed)} of the way from a generic {noun} "
            f"to your {photos}"
        )

    def _figures(self) -> str:
        ceiling = (
            "no ceiling, with one photo"
            if self.photo_ceiling is None
            else f"photos among themselves {self.photo_ceiling:.2f}"
        )
        return (
            f"({self.encoder} {self.subject_fidelity:.2f}; "
            f"base {self.base_fidelity:.2f}, {ceiling})"
        )

    def _class(self, noun: str) -> str:
        troubles = []
        if self.prior_drift is None:
            before, after = self.base_class_similarity, self.class_similarity
            troubles.append(f"went from {before:.2f} to {after:.2f} in likeness to them")
        elif self.prior_drift > DRIFT_ALLOWED:
            troubles.append(f"has moved {_percent(self.prior_drift)} of the way there too")
        if self.diversity is not None and self.diversity < DIVERSITY_KEPT:
            troubles.append(f"is {_percent(1 - self.diversity)} less varied than before")
        return f"any other {noun} {' and '.join(troubles) or 'stays itself'}"


def measure_quality(
    encoder: Encoder,
    *,
    photos: Sequence[Image.Image],
    tuned: Sequence[Image.Image],
    base: Sequence[Image.Image],
    prompts: Sequence[str],
    tuned_class: Sequence[Image.Image],
    base_class: Sequence[Image.Image],
) -> Quality:
    """All figures of a job.

    Args:
        encoder: What to measure with.
        photos: The subject's.
        tuned: Pictures of the subject by the tuned model.
        base: The base model's for the same prompts and seeds.
        prompts: One for each of `tuned`, without the identifier token.
        tuned_class: Fresh pictures of the class by the tuned model.
        base_class: The base model's for the same prompt and seeds.
    """
    of_photos, of_tuned, of_base = (encoder.embed(images) for images in (photos, tuned, base))
    after, before = encoder.embed(tuned_class), encoder.embed(base_class)
    fidelity, floor = subject_fidelity(of_tuned, of_photos), subject_fidelity(of_base, of_photos)
    ceiling = photo_ceiling(of_photos)
    kept = diversity(after) / max(diversity(before), 1e-6)
    of_prompts: list[float | None] = [None, None]
    if isinstance(encoder, TextEncoder):
        texts = encoder.embed_text(prompts)
        of_prompts = [prompt_fidelity(of_tuned, texts), prompt_fidelity(of_base, texts)]
    return Quality(
        encoder=encoder.name,
        photos=len(photos),
        pictures=len(tuned),
        subject_fidelity=fidelity,
        base_fidelity=floor,
        photo_ceiling=_known(ceiling),
        gap_closed=_known(gap_closed(fidelity, floor, ceiling)),
        class_similarity=class_similarity(after, of_photos),
        base_class_similarity=class_similarity(before, of_photos),
        prior_drift=_known(prior_drift(before, after, of_photos, floor, ceiling)),
        class_diversity=_known(diversity(after)),
        base_class_diversity=_known(diversity(before)),
        diversity=_known(kept),
        prompt_fidelity=of_prompts[0],
        base_prompt_fidelity=of_prompts[1],
        notes=tuple(_notes(encoder, len(photos), ceiling - floor, len(tuned_class))),
    )


def _notes(encoder: Encoder, photos: int, gap: float, class_images: int) -> list[str]:
    notes = []
    if photos < 2:
        notes.append(
            "One photo has nothing to be compared with among photos: there is no ceiling, no "
            "share of the gap and no drift. Two or more photos give them."
        )
    elif gap < MIN_GAP:
        notes.append(
            "The base model's pictures are already about as close to the photos as these are to "
            "one another: a share of that gap would be noise."
        )
    if class_images < 2:
        notes.append("One class picture has no diversity; ask for at least two a prompt.")
    if not isinstance(encoder, TextEncoder):
        notes.append(
            f"{encoder.name} does not understand text: how well the pictures follow their "
            "prompts was not measured. The encoder clip-vit-b32 can."
        )
    return notes


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"
