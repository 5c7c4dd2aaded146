"""How many pictures are computed together.

On a CPU always the same number, so that a picture does not depend, bit for bit, on how many are
drawn or who draws them. On a GPU as many as its memory takes: a fixed number would waste a large
card, fail on a small one, and cost five pictures as much as sixteen. There a picture depends on
its batch in the last bits of half precision, as it depends on the make of the GPU.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import torch

from dreambooth.errors import InfrastructureError

# Latent pixels in one call of the denoiser: 24 guided pictures of 512 pixels, or six of 1024. An
# H100 is as fast with a third less, and with a third more.
FULL_CALL = 48 * 64 * 64
# Bytes that the denoiser takes for a latent pixel, and the decoder for a pixel, beside weights:
# what Stable Diffusion 1.4 was seen to take, and as much again. They only say where to begin.
DENOISING_BYTES = 32 * 1024
DECODING_BYTES = 5 * 1024
# What a size costs that the process has not drawn in yet, in pictures: about three seconds.
NEW_SIZE = 12
# Of the memory that is free, for decoding, which goes on beside the next batch.
DECODING_SHARE = 0.25
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
    """Batches of one size, up to `largest`, that leave little to be filled up.

    One size, because each costs seconds of its own: kernels are chosen and compiled for it, a
    graph is captured. So sizes that are known already are taken if they waste less than that.
    """

    def __init__(self, largest: int, known: set[int] | None = None) -> None:
        """`known` are sizes drawn in before; those drawn in are added."""
        self.largest = largest
        self._known = set() if known is None else known
        self._size = 0

    def next(self, left: int) -> int:
        """As many as there are, up to the size; the first call chooses it for all that is left."""
        if not self._size:
            self._size = best_size(left, self.largest, self._known)
            self._known.add(self._size)
        return min(left, self._size)

    def rows(self, pictures: int) -> int:
        """The size."""
        return self._size

    def shrink(self, pictures: int) -> None:
        """At most half of what was too much."""
        if self._size <= 1:
            raise _out_of_memory(self._size)
        self.largest = self._size // 2
        self._size = 0


def best_size(count: int, largest: int, known: Collection[int] = ()) -> int:
    """The size that costs least for `count` pictures, none below half of `largest` needlessly.

    Args:
        count: How many there are.
        largest: The largest size allowed.
        known: Sizes that cost nothing but what they compute.
    """
    smallest = min(count, _part(largest, 2))
    sizes = {count} if count <= largest else set(range(smallest, largest + 1))
    sizes.update(size for size in known if smallest <= size <= largest)

    def cost(size: int) -> tuple[int, int]:
        new = 0 if size in known else NEW_SIZE
        return size * _part(count, size) + new, -size

    return min(sizes, key=cost)


@dataclass(frozen=True)
class Capacity:
    """What to begin with on a GPU.

    Attributes:
        batch: Pictures in a batch of the denoiser.
        decoded: Pictures that are decoded together.
    """

    batch: int
    decoded: int


def capacity(free: int, rows_a_picture: int, latent_pixels: int, pixels: int) -> Capacity:
    """What should fit into `free` bytes; if it does not, batches shrink.

    Args:
        free: Bytes free with the weights loaded.
        rows_a_picture: Two with guidance, else one.
        latent_pixels: Of one picture.
        pixels: Of one picture.
    """
    decoded = min(MOST_DECODED, max(1, int(DECODING_SHARE * free / (DECODING_BYTES * pixels))))
    left = free - decoded * DECODING_BYTES * pixels
    fitting = int(left / (DENOISING_BYTES * latent_pixels * rows_a_picture))
    wanted = FULL_CALL // (rows_a_picture * latent_pixels)
    return Capacity(max(1, min(wanted, fitting)), decoded)


def free_memory(device: torch.device) -> int:
    """Bytes of `device` that this process can still take."""
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])


def _part(whole: int, size: int) -> int:
    """`whole / size`, rounded up."""
    return -(-whole // size)


def _out_of_memory(pictures: int) -> InfrastructureError:
    what = "one picture" if pictures == 1 else f"{pictures} pictures"
    return InfrastructureError(
        f"the memory is too small to draw {what} with this model",
        field="spec.cluster.pool",
        remedy="Use a pool whose GPUs have more memory, or see what else uses this one.",
        reason="OutOfMemory",
    )
