"""What each optimizer step sees, as a pure function of seed and step.

Nothing here has state: the pairs, timesteps and noise of step s follow from the seed and s alone.
A resumed run therefore continues exactly where it was, and N workers, each taking its share of a
step's pairs, see together what one worker would have seen.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Pair:
    """One photo and one class picture, by number, the seeds of their noise, and how much of it.

    A time in [0, 1) is a share of the noise process's timesteps.
    """

    photo: int
    class_image: int
    photo_seed: int
    class_seed: int
    photo_time: float
    class_time: float


@dataclass(frozen=True)
class Sample:
    """One picture of a step: which, of which kind, the seed of its noise, and how much of it."""

    of_class: bool
    picture: int
    seed: int
    time: float


def samples_of(pairs: Sequence[Pair]) -> list[Sample]:
    """The pictures of `pairs`: all photos, then all class pictures."""
    photos = [Sample(False, p.photo, p.photo_seed, p.photo_time) for p in pairs]
    return photos + [Sample(True, p.class_image, p.class_seed, p.class_time) for p in pairs]


@dataclass(frozen=True)
class PairSchedule:
    """Which pairs make up each optimizer step.

    Photos and class pictures are each gone through in shuffled rounds: no picture is seen a
    second time before all of its kind have been seen once. Times follow a golden-ratio sequence,
    so that the samples of a step, and of every run of steps, are spread evenly over the noise
    levels (Kingma et al., arXiv 2107.00630, appendix I.1): gradients vary less than with
    independent draws.
    """

    seed: int
    photos: int
    class_images: int
    batch_size: int

    def step(self, step: int) -> list[Pair]:
        """The pairs of optimizer step `step` (counted from 0), `batch_size` of them."""
        first = step * self.batch_size
        return [self._pair(number) for number in range(first, first + self.batch_size)]

    def _pair(self, number: int) -> Pair:
        return Pair(
            photo=self._shuffled("photo", number, self.photos),
            class_image=self._shuffled("class", number, self.class_images),
            photo_seed=derive_seed(self.seed, "photo-noise", number),
            class_seed=derive_seed(self.seed, "class-noise", number),
            photo_time=self._time("photo-time", number),
            class_time=self._time("class-time", number),
        )

    def _time(self, purpose: str, number: int) -> float:
        offset = derive_seed(self.seed, purpose, 0) / 2**63
        return (offset + number * GOLDEN_RATIO) % 1.0

    def _shuffled(self, kind: str, number: int, length: int) -> int:
        round_number, place = divmod(number, length)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, kind, round_number))
        return int(torch.randperm(length, generator=generator)[place])


def derive_seed(seed: int, purpose: str, number: int) -> int:
    """An independent 63-bit seed for each purpose and number."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class SampleNoise:
    """The random draws of one sample: latent noise and diffusion noise."""

    posterior: Tensor
    noise: Tensor


def draw(seed: int, latent_shape: tuple[int, int, int]) -> SampleNoise:
    """The draws of one sample from its own seed, `[C, h, w]` each."""
    generator = torch.Generator().manual_seed(seed)
    return SampleNoise(
        posterior=torch.randn(latent_shape, generator=generator),
        noise=torch.randn(latent_shape, generator=generator),
    )
