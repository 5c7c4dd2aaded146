"""Colours: the words, their values, turning a picture's hue and naming the colour it has then."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Colours a thing can have. The first eight are hues, which turning changes; the rest are not.
WORDS = (
    *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"),
    *("black", "white", "gray"),
)
HUES = 8
NO_COLOUR = -1

# Colours a background can have.
VALUES = {
    "red": (214, 48, 49),
    "orange": (245, 140, 40),
    "yellow": (250, 211, 60),
    "green": (70, 170, 80),
    "blue": (60, 120, 215),
    "purple": (135, 75, 185),
    "pink": (245, 150, 190),
    "brown": (130, 85, 55),
    "black": (22, 22, 26),
    "white": (255, 255, 255),
    "gray": (150, 152, 156),
    "light blue": (170, 210, 245),
    "dark blue": (25, 45, 110),
    "light green": (180, 230, 170),
    "teal": (35, 150, 150),
    "beige": (238, 224, 196),
}
BACKGROUNDS = tuple(VALUES)

# A turn is a multiple of 45 degrees in the chrominance plane of YIQ, where luminance stays.
TURNS = 8
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def turn_matrices() -> NDArray[np.float32]:
    """What to multiply RGB by for each turn, [TURNS, 3, 3]."""
    matrices = []
    for turn in range(TURNS):
        angle = 2 * np.pi * turn / TURNS
        cosine, sine = np.cos(angle), np.sin(angle)
        rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        matrices.append(np.linalg.inv(_YIQ) @ rotation @ _YIQ)
    return np.stack(matrices).astype(np.float32)


def dominant_colours(image: Image.Image) -> tuple[int, ...]:
    """For each turn the index in WORDS of the colour that most of the picture has then.

    NO_COLOUR where there is no such colour. Black, white and gray count less: outlines and
    highlights have them in every picture.
    """
    pixels = np.asarray(image.convert("RGBA").resize((32, 32)))
    opaque = pixels[..., :3][pixels[..., 3] > 128].astype(np.float32)
    if not len(opaque):
        return (NO_COLOUR,) * TURNS
    return tuple(
        _dominant(name_pixels((opaque @ matrix.T).clip(0, 255))) for matrix in turn_matrices()
    )


def name_pixels(rgb: NDArray[np.float32]) -> NDArray[np.intp]:
    """The index in WORDS for each pixel of [N, 3] in 0..255."""
    red, green, blue = (rgb[:, c] / 255 for c in range(3))
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue) + 1e-6
    saturation = np.where(value > 0, spread / np.maximum(value, 1e-6), 0)
    hue = 60 * np.where(
        value == red,
        ((green - blue) / spread) % 6,
        np.where(value == green, (blue - red) / spread + 2, (red - green) / spread + 4),
    )
    # Where one hue's name ends and the next one's begins, in degrees; from 342 on it is red again.
    name = np.searchsorted([16, 42, 68, 165, 255, 292, 342], hue, side="right") % 7

    def rename(old: str, new: str, where: NDArray[np.bool_]) -> None:
        name[(name == WORDS.index(old)) & where] = WORDS.index(new)

    rename("orange", "brown", value < 0.68)
    rename("red", "brown", (value < 0.5) & (hue < 342) & (saturation < 0.75))
    rename("red", "pink", (saturation < 0.45) & (value > 0.75))
    rename("purple", "pink", (value > 0.9) & (hue > 285))
    unsaturated = np.where(value > 0.85, 9, np.where(value < 0.25, 8, 10))
    name = np.where(saturation < 0.16, unsaturated, name)
    return np.where(value < 0.16, WORDS.index("black"), name)


def _dominant(names: NDArray[np.intp]) -> int:
    counts = np.bincount(names, minlength=len(WORDS)).astype(float)
    counts[HUES:] *= 0.6
    most = int(counts.argmax())
    return most if counts[most] / counts.sum() > 0.5 else NO_COLOUR
