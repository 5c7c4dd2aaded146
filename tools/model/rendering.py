"""From a drawing as it is published to 128 px RGBA."""

import io

import numpy as np
import resvg_py
from PIL import Image

from tools.model.picture import SIZE


def render(source: bytes) -> Image.Image:
    """An SVG, PNG or WebP as [128, 128] RGBA, whole and in the middle."""
    if source.lstrip().startswith(b"<svg"):
        source = bytes(resvg_py.svg_to_bytes(svg_string=source.decode(), skip_system_fonts=True))
    image = Image.open(io.BytesIO(source)).convert("RGBA")
    if image.size != (SIZE, SIZE):
        image = _resize(_square(image))
    return image


def is_empty(image: Image.Image) -> bool:
    """Whether next to nothing of the picture is opaque."""
    return bool((np.asarray(image)[..., 3] > 64).mean() < 0.02)


def _square(image: Image.Image) -> Image.Image:
    side = max(image.size)
    canvas = Image.new("RGBA", (side, side))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def _resize(image: Image.Image) -> Image.Image:
    """Scales with premultiplied alpha: what is transparent must not colour the edges."""
    pixels = np.asarray(image).astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    method = Image.Resampling.LANCZOS if image.width > SIZE else Image.Resampling.BICUBIC
    channels = [Image.fromarray(pixels[..., c]).resize((SIZE, SIZE), method) for c in range(4)]
    scaled = np.stack([np.asarray(channel) for channel in channels], -1)
    alpha = scaled[..., 3:].clip(0, 255)
    colour = np.where(alpha > 0.5, scaled[..., :3] / np.maximum(alpha, 1e-3) * 255, 0)
    values = np.concatenate([colour, alpha], -1).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(values, "RGBA")
