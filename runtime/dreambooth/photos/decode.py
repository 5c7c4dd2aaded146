"""From any file that claims to be a picture to upright RGB, or a clear refusal."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from dreambooth.errors import UserError
from dreambooth.photos.limits import (
    FOREIGN_SUFFIXES,
    MAX_EDGE,
    MAX_PIXELS,
    MIN_EDGE,
    PICTURE_SUFFIXES,
)

FIELD = "spec.subject.photos"
# Formats whose decoders read pictures and nothing else; not, for example, PostScript.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_TRANSPARENT_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class Decoded:
    """A picture as later stages use it.

    Attributes:
        image: RGB, upright, on white, at most 2048 pixels on the long edge.
        size: Width and height as stored in the file.
        format: Name of the file's format.
        frames: 1 unless it is animated.
    """

    image: Image.Image
    size: tuple[int, int]
    format: str
    frames: int


class NotAPicture(Exception):
    """The file is no picture, and its name doesn't say so either."""


def decode(file: Path) -> Decoded:
    """Reads the picture in `file`.

    Raises:
        NotAPicture: If neither content nor name are a picture's.
        UserError: If it is one that cannot be used; names the file.
    """
    with _own_limits():
        try:
            opened = Image.open(file, formats=_readable())
        except UnidentifiedImageError as error:
            raise _unidentified(file) from error
        except Image.DecompressionBombError as error:
            raise _too_large(file, f"more than {2 * MAX_PIXELS / 1e6:,.0f}") from error
        except Exception as error:
            # Decoders of strangers' files raise whatever comes to their mind.
            raise _damaged(file) from error
        with opened:
            _check_size(file, opened.size)
            try:
                return _decode(opened)
            except Exception as error:
                raise _damaged(file) from error


@contextlib.contextmanager
def _own_limits() -> Iterator[None]:
    """Pillow judges neither size nor metadata: the one is ours, the other does pixels no harm.

    Its limit lies below the sensors of today's phones. It still stops what is beyond twice ours.
    """
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _readable() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _decode(opened: Image.Image) -> Decoded:
    frames = int(getattr(opened, "n_frames", 1))
    size, kind = opened.size, opened.format or "unknown"
    if frames > 1:
        opened.seek(0)
    # JPEG can be decoded at a half or a quarter of its size, which saves most of the memory; twice
    # the wanted size is left for a good filter.
    scale = min(1.0, 2 * MAX_EDGE / max(size))
    opened.draft(None, (round(size[0] * scale), round(size[1] * scale)))
    opened.load()
    image = _to_rgb(_upright(opened))
    if max(image.size) > MAX_EDGE:
        image.thumbnail((MAX_EDGE, MAX_EDGE), Image.Resampling.LANCZOS, reducing_gap=None)
    return Decoded(image, size, "JPEG" if kind == "MPO" else kind, 1 if kind == "MPO" else frames)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # Metadata that cannot be read says nothing about which way is up.
        return image.copy()


def _to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode in _DEEP_MODES:
        return _eight_bits(image).convert("RGB")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        layer = image.convert("RGBA")
        colours = _to_srgb(layer.convert("RGB"), profile)
        colours.putalpha(layer.getchannel("A"))
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), colours).convert("RGB")
    if image.mode in ("P", "1"):
        image = image.convert("RGB")
    return _to_srgb(image, profile)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """In the colours of screens; cameras and phones often store wider ones."""
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    elif profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        except (OSError, ImageCms.PyCMSError):
            return image.convert("RGB")
    else:
        return image.convert("RGB")
    target = ImageCms.createProfile("sRGB")
    try:
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, ValueError):
        # A profile for other channels than the picture has.
        return image.convert("RGB")
    return converted if converted is not None else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode == "F":
        low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (
            float(values.min()), float(values.max()))  # fmt: skip
    else:
        low, high = 0.0, 255.0 if values.max() <= 255 and image.mode == "I" else 65535.0
    scaled = (values - low) / max(high - low, 1e-12) * 255
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _check_size(file: Path, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise _too_large(file, f"{width * height / 1e6:,.0f}")
    if min(size) < MIN_EDGE:
        raise _refused(
            file,
            f"is too small, {width} × {height} pixels",
            f"Use photos of at least {MIN_EDGE} pixels on the short edge, better 512.",
        )


def _unidentified(file: Path) -> Exception:
    suffix = file.suffix.lower()
    if suffix in FOREIGN_SUFFIXES:
        return _refused(
            file,
            f"is in a format that cannot be read here ({suffix[1:].upper()})",
            "Save it as JPEG or PNG.",
        )
    if suffix in PICTURE_SUFFIXES:
        if file.stat().st_size == 0:
            return _refused(file, "is empty", "Copy the photo again, or take the file out.")
        if file.read_bytes()[:64].startswith(b"version https://git-lfs"):
            return _refused(
                file, "is only a pointer of Git LFS", "Run git lfs pull where it comes from."
            )
        return _refused(
            file,
            "is no picture, in spite of its name, or damaged from the first byte",
            "Replace it, or take it out.",
        )
    return NotAPicture(file.name)


def _too_large(file: Path, millions: str) -> UserError:
    return _refused(
        file,
        f"unpacks to {millions} million pixels, and a photo may have {MAX_PIXELS // 10**6} million",
        "Save it smaller.",
    )


def _damaged(file: Path) -> UserError:
    return _refused(file, "is damaged or not complete", "Copy the photo again, or take it out.")


def _refused(file: Path, what: str, remedy: str) -> UserError:
    return UserError(f"{file.name} {what}", field=FIELD, remedy=remedy, reason="PhotoNotUsable")
