"""What each quality figure says, in plain words beside its number."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One row of the quality table."""

    name: str
    value: str
    meaning: str


_SHARES = {"gapClosed", "priorDrift", "diversity"}

_MEANINGS = (
    (
        "gapClosed",
        "Likeness gained",
        "How far the pictures came from the base model (0 %) to the photos (100 %).",
    ),
    (
        "subjectFidelity",
        "Likeness to the photos",
        "How alike new pictures and photos are; 1 is equal.",
    ),
    (
        "baseFidelity",
        "Base model's likeness",
        "The floor: same prompts, same seeds, a model that never saw the subject.",
    ),
    (
        "photoCeiling",
        "Photos among themselves",
        "The ceiling: photos of one subject are not equal either.",
    ),
    (
        "promptFidelity",
        "Following the prompt",
        "How well pictures and prompts match; 0.3 is a good value for CLIP.",
    ),
    (
        "basePromptFidelity",
        "Base model following the prompt",
        "A tuned model that falls far behind this one has forgotten how to follow.",
    ),
    (
        "priorDrift",
        "Drift of the class",
        "How far ordinary pictures of the class moved towards the subject as well; up to 10 % is "
        "fine, less than 0 is away from it.",
    ),
    (
        "classSimilarity",
        "Class pictures against the photos",
        "What drift is made of, after training.",
    ),
    (
        "baseClassSimilarity",
        "Base model's class pictures against the photos",
        "What drift is made of, before training.",
    ),
    (
        "diversity",
        "Diversity kept",
        "How varied ordinary pictures of the class still are; 90 % and more is fine.",
    ),
    ("classDiversity", "Diversity of class pictures", "After training; 0 is all alike."),
    (
        "baseClassDiversity",
        "Diversity of the base model's",
        "Before training.",
    ),
)


def explained_figures(quality: Mapping[str, Any]) -> list[Figure]:
    """The figures that are there, the most telling first."""
    return [
        Figure(name, _value(key, quality[key]), meaning)
        for key, name, meaning in _MEANINGS
        if quality.get(key) is not None
    ]


def _value(key: str, value: float) -> str:
    return f"{round(100 * value)}\u202f%" if key in _SHARES else f"{value:.2f}"
