"""What can be told about a photo from its pixels: blur, flatness, likeness to another."""

import numpy as np
import numpy.typing as npt
from PIL import Image

# Below this, at 512 pixels on the long edge, people call a photo blurred.
BLURRED = 20.0
# Two photos whose 240 bits differ in at most this many show the same thing from the same place.
NEAR_BITS = 12
_SIDE = 512
_HASH = 64
_LOW = 16

Bits = npt.NDArray[np.bool_]


def sharpness(image: Image.Image) -> float:
    """Variance of the Laplacian of the grey picture, at most 512 pixels on the long edge.

    Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000.
    """
    grey = image.convert("L")
    if max(grey.size) > _SIDE:
        grey.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float64)
    inner = values[1:-1, 1:-1]
    laplacian = (
        values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * inner
    )
    return round(float(laplacian.var()), 2)


def is_flat(image: Image.Image) -> bool:
    """Whether it shows one even colour and nothing else."""
    small = np.asarray(image.resize((64, 64), Image.Resampling.BOX), dtype=np.int16)
    return bool(np.ptp(small, axis=(0, 1)).max() <= 2)


def perceptual_hash(image: Image.Image) -> Bits:
    """Signs of the lowest 16 x 16 frequencies of the grey picture, without the flattest, [240].

    Survives scaling, recompression and small changes of light (Zauner, 2010).
    """
    grey = image.convert("L").resize((_HASH, _HASH), Image.Resampling.BOX)
    basis = _cosines()
    low = basis @ np.asarray(grey, dtype=np.float64) @ basis.T
    values = low.ravel()[_LOW:]
    bits: Bits = values > np.median(values)
    return bits


def near(a: Bits, b: Bits) -> bool:
    """Whether two hashes belong to nearly the same picture."""
    return int(np.count_nonzero(a != b)) <= NEAR_BITS


def _cosines() -> npt.NDArray[np.float64]:
    """The first 16 rows of the discrete cosine transform of 64 values, [16, 64]."""
    rows, columns = np.arange(_LOW)[:, None], np.arange(_HASH)[None, :]
    return np.cos(np.pi * rows * (2 * columns + 1) / (2 * _HASH))
