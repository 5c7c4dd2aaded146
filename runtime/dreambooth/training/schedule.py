"""What each optimizer step sees, as a pure function of seed and step.

Nothing here has state: the pairs, timesteps and noise of step s follow from the seed and s alone.
A resumed run therefore continues exactly where it was, and N workers, each taking its share of a
step's pairs, see together what one worker would have seen.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """One photo and one class picture, by number, and the seeds of their noise."""

    photo: int
    class_image: int
    photo_seed: int
    class_seed: int


@dataclass(frozen=True)
class PairSchedule:
    """Which pairs make up each optimizer step.

    Photos and class pictures are each gone through in shuffled rounds: no picture is seen a
    second time before all of its kind have been seen once.
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
        )

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
    """The random draws of one sample: latent noise, diffusion noise, timestep."""

    posterior: Tensor
    noise: Tensor
    timestep: int


def draw(seed: int, latent_shape: tuple[int, int, int], timesteps: int) -> SampleNoise:
    """The draws of one sample from its own seed; noise `[C, h, w]`, a timestep in [0, T)."""
    generator = torch.Generator().manual_seed(seed)
    return SampleNoise(
        posterior=torch.randn(latent_shape, generator=generator),
        noise=torch.randn(latent_shape, generator=generator),
        timestep=int(torch.randint(timesteps, (1,), generator=generator)),
    )
