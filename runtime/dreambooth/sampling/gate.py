"""The quality gate: which pictures are not worth training on.

A base model sometimes makes a black or flat picture (a numerical overflow) or the same picture
twice. Such a candidate is refused and its index tries its next seed. So is one that the model's
safety checker flags, of which the gate sees nothing: it never leaves the process that drew it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreambooth.errors import UserError

THUMBNAIL = 16
# Grey levels of 255. A black frame has no bright pixel at all; a flat one hardly any contrast.
BLACK_BELOW = 8.0
FLAT_BELOW = 2.0
# Two seeds of one prompt differ by tens of grey levels; below this they are one picture.
DUPLICATE_BELOW = 1.0


class Verdict(StrEnum):
    """What the gate says of a candidate."""

    ACCEPTED = "accepted"
    BLACK = "black"
    FLAT = "flat"
    DUPLICATE = "duplicate"
    FLAGGED = "flagged"


@dataclass(frozen=True)
class Look:
    """What the gate needs to know of a picture: `[16, 16]` grey thumbnail, and extremes."""

    thumbnail: NDArray[np.float32]
    brightest: float
    deviation: float

    def to_json(self) -> dict[str, Any]:
        """JSON-able, without loss; `from_json` is its inverse."""
        return {
            "thumbnail": self.thumbnail.tolist(),
            "brightest": self.brightest,
            "deviation": self.deviation,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Look":
        """What `to_json` gave."""
        thumbnail = np.array(value["thumbnail"], dtype=np.float32)
        return cls(thumbnail, value["brightest"], value["deviation"])


def look_at(picture: NDArray[np.uint8]) -> Look:
    """Summarises a picture `[H, W, 3]` RGB."""
    grey = picture.astype(np.float32).mean(axis=2)
    height, width = grey.shape
    rows = np.array_split(np.arange(height), min(THUMBNAIL, height))
    columns = np.array_split(np.arange(width), min(THUMBNAIL, width))
    small = np.stack([grey[r].mean(axis=0) for r in rows])
    small = np.stack([small[:, c].mean(axis=1) for c in columns], axis=1)
    return Look(small.astype(np.float32), float(grey.max()), float(picture.std()))


def judge(candidate: Look, accepted: list[Look]) -> Verdict:
    """Judges a candidate against the pictures accepted before it."""
    if candidate.brightest < BLACK_BELOW:
        return Verdict.BLACK
    if candidate.deviation < FLAT_BELOW:
        return Verdict.FLAT
    if accepted:
        others = np.stack([look.thumbnail for look in accepted])
        nearest = np.abs(others - candidate.thumbnail).mean(axis=(1, 2)).min()
        if nearest < DUPLICATE_BELOW:
            return Verdict.DUPLICATE
    return Verdict.ACCEPTED


def given_up(what: str, verdict: Verdict, attempts: int, field: str) -> UserError:
    """The error that ends a job when so many seeds gave nothing; the last one gave `verdict`.

    Args:
        what: The picture.
        verdict: Why the last candidate was refused.
        attempts: How many were.
        field: Where the user gave the prompt.
    """
    if verdict is Verdict.FLAGGED:
        return UserError(
            f"the model's safety checker flagged {what} with {attempts} different seeds",
            field=field,
            remedy="Change the prompt, or use another base model; if the pictures are harmless, "
            "set spec.model.safetyChecker to disabled.",
            reason="PicturesFlagged",
        )
    return UserError(
        f"{what} came out {verdict.value} with {attempts} different seeds",
        field=field,
        remedy="Change the prompt, the guidance or the number of steps, or use another base model.",
        reason="ClassImagesRefused",
    )
