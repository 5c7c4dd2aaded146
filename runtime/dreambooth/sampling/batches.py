"""How many pictures are computed together.

On a CPU always the same number, so that a picture does not depend, bit for bit, on how many are
drawn or who draws them. On a GPU as many as its memory takes: a fixed number would waste a large
card, fail on a small one, and cost five pictures as much as sixteen. There a picture depends on
its batch in the last bits of half precision, as it depends on the make of the GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from dreambooth.errors import InfrastructureError

# Latent pixels in one call of the denoiser: sixteen guided pictures of 512 pixels, or four of
# 1024. GPUs are busy from there on; more in a call takes memory and brings little.
FULL_CALL = 32 * 64 * 64
# Of the memory that is free before the first batch. The rest is for what a probe does not see:
# fragments, libraries' workspaces, pictures on their way out.
MEMORY_SHARE = 0.85
# Of that again, for decoding, which goes on beside the next batch.
DECODING_SHARE = 0.2
MOST_DECODED = 8


class Batches(Protocol):
    """Cuts what is to be drawn into batches."""

    def next(self, left: int) -> int:
        """How many of the `left` pictures the next batch draws."""

    def rows(self, pictures: int) -> int:
        """How many are computed to draw so many; those beyond are thrown away."""

    def shrink(self, pictures: int) -> None:
        """Makes further batches smaller, because memory was too short for one of `pictures`.

        Raises:
            InfrastructureError: If they cannot be smaller.
        """


@dataclass(frozen=True)
class FixedBatches:
    """Batches of `size` whatever there is to draw; the last one is filled up."""

    size: int

    def next(self, left: int) -> int:
        """As many as there are, up to `size`."""
        return min(left, self.size)

    def rows(self, pictures: int) -> int:
        """Always `size`."""
        return self.size

    def shrink(self, pictures: int) -> None:
        """They cannot be smaller."""
        raise _out_of_memory(pictures)


class FittingBatches:
    """As few batches as `largest` allows and nearly equal, so of two sizes at most.

    Every size costs its own preparation: kernels are chosen for it, a graph is captured.
    """

    def __init__(self, largest: int) -> None:
        self.largest = largest

    def next(self, left: int) -> int:
        """An equal part of what is left."""
        return _part(left, _part(left, self.largest))

    def rows(self, pictures: int) -> int:
        """No more than needed."""
        return pictures

    def shrink(self, pictures: int) -> None:
        """At most half of what was too much."""
        if pictures <= 1:
            raise _out_of_memory(pictures)
        self.largest = min(self.largest, pictures) // 2


@dataclass(frozen=True)
class MemoryUse:
    """Bytes that a computation of `n` rows takes beside the weights: `fixed + n * each`."""

    fixed: float
    each: float

    @classmethod
    def between(cls, few: tuple[int, int], more: tuple[int, int]) -> "MemoryUse":
        """From two measurements, each the number of rows and their bytes."""
        each = max(1.0, (more[1] - few[1]) / (more[0] - few[0]))
        return cls(max(0.0, few[1] - few[0] * each), each)

    def rows_in(self, bytes_free: float) -> int:
        """How many rows fit, at least one."""
        return max(1, int((bytes_free - self.fixed) / self.each))


@dataclass(frozen=True)
class Capacity:
    """What a GPU takes.

    Attributes:
        batch: Pictures in a batch of the denoiser.
        decoded: Pictures that are decoded together.
    """

    batch: int
    decoded: int


def capacity(
    free: int, denoising: MemoryUse, decoding: MemoryUse, rows_a_picture: int, latent_pixels: int
) -> Capacity:
    """What fits into `free` bytes.

    Args:
        free: Bytes free with the weights loaded.
        denoising: Of the denoiser, by row.
        decoding: Of the decoder, by picture.
        rows_a_picture: Two with guidance, else one.
        latent_pixels: Of one picture.
    """
    usable = MEMORY_SHARE * free
    decoded = min(MOST_DECODED, decoding.rows_in(DECODING_SHARE * usable))
    left = usable - decoding.fixed - decoded * decoding.each
    wanted = max(1, FULL_CALL // (rows_a_picture * latent_pixels))
    fitting = max(1, denoising.rows_in(left) // rows_a_picture)
    return Capacity(min(wanted, _power_of_two(fitting)), decoded)


def peak_memory(device: torch.device, call: Callable[[], object]) -> int:
    """Bytes that `call` allocates on `device` at most, beside what is there before it."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def free_memory(device: torch.device) -> int:
    """Bytes of `device` that this process can still take."""
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])


def _part(whole: int, size: int) -> int:
    """`whole / size`, rounded up."""
    return -(-whole // size)


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)


def _out_of_memory(pictures: int) -> InfrastructureError:
    what = "one picture" if pictures == 1 else f"{pictures} pictures"
    return InfrastructureError(
        f"the memory is too small to draw {what} with this model",
        field="spec.cluster.pool",
        remedy="Use a pool whose GPUs have more memory, or see what else uses this one.",
        reason="OutOfMemory",
    )
