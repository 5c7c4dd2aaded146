"""What determines a picture, apart from the model."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

# On a CPU pictures are always computed in batches of this many, the last one filled up: kernels are
# chosen by shape, so a fixed shape makes a picture's pixels independent of which others share its
# batch. (On a GPU batches are as large as its memory takes: see `batches`.)
BATCH_SIZE = 8


@dataclass(frozen=True)
class SamplingSettings:
    """The sampler: `scheduler` None is the model's own; `steps` and `guidance` as in diffusers."""

    scheduler: str | None
    steps: int
    guidance: float
    negative_prompt: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-able, for digests and records."""
        return asdict(self)


@dataclass(frozen=True)
class PictureRequest:
    """One picture to make.

    Attributes:
        index: Its number within its set.
        attempt: 0, or how many candidates for this index the quality gate has refused before.
        prompt: The prompt, placeholders filled in.
        seed: Seed of its initial noise.
    """

    index: int
    attempt: int
    prompt: str
    seed: int


def picture_seed(seed: int, prompt: str, index: int, attempt: int) -> int:
    """Seed of one picture's noise: a function of these four alone.

    It does not depend on the model, so that the base and the tuned model start from the same
    noise; nor on how many pictures are made, by whom, or in which order.
    """
    text = f"{seed}\x00{prompt}\x00{index}\x00{attempt}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
