"""Photos that tests make: sharp, colourful, and different for each number."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def a_photo(number: int = 0, size: tuple[int, int] = (192, 144)) -> Image.Image:
    """Hard-edged coloured squares."""
    squares = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(squares).resize(size, Image.Resampling.NEAREST)


def a_landscape(number: int = 0, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Noise with the spectrum of photos of the world: amplitude falls with frequency."""
    width, height = size
    down, across = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    amplitude = 1 / np.maximum(np.hypot(down, across), 1 / width)
    noise = np.random.default_rng(number).normal(size=(3, height, width))
    waves = np.fft.ifft2(np.fft.fft2(noise) * amplitude).real.transpose(1, 2, 0)
    values = waves / waves.std(axis=(0, 1)) * 50 + 128
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def picture_bytes(image: Image.Image | None = None, kind: str = "PNG", **options: Any) -> bytes:
    """The content of a picture file."""
    data = io.BytesIO()
    (image or a_photo()).save(data, kind, **options)
    return data.getvalue()


def save_photos(folder: Path, count: int) -> list[Path]:
    """`photo-0.png`, `photo-1.png`, … in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"photo-{number}.png" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(picture_bytes(a_photo(number)))
    return files
