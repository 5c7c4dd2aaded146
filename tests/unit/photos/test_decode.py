"""Any picture becomes upright RGB on white; anything else is refused by its name."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from dreambooth.photos.decode import Decoded, decode
from tests.unit.photos.pictures import a_photo

ORANGE, NAVY = (230, 140, 30), (20, 40, 120)
# Left and right as grey by ITU-R 601, which Pillow uses.
GREYS = (154, 43)

# How a picture has to lie in the file for its orientation tag to put it upright.
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def halves() -> Image.Image:
    """Orange on the left, navy on the right."""
    image = Image.new("RGB", (96, 64), ORANGE)
    image.paste(NAVY, (48, 0, 96, 64))
    return image


def deep(high: float, kind: type[np.generic]) -> Image.Image:
    """Grey halves of 80 % and 20 %, where `high` is white."""
    values = np.full((64, 96), 0.8 * high)
    values[:, 48:] = 0.2 * high
    return Image.fromarray(values.astype(kind))


def saved(folder: Path, name: str, image: Image.Image, **options: Any) -> Path:
    file = folder / name
    image.save(file, **options)
    return file


def sides(decoded: Decoded) -> np.ndarray:
    """Mean colours of the left and the right, away from the edge between them."""
    pixels = np.asarray(decoded.image, dtype=float)
    width = pixels.shape[1]
    left, right = pixels[:, : width // 3], pixels[:, -width // 3 :]
    return np.array([left.mean(axis=(0, 1)), right.mean(axis=(0, 1))])


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("RGB", "p.png"), ("RGB", "p.jpg"), ("RGB", "p.webp"), ("RGB", "p.bmp"),
        ("RGB", "p.tiff"), ("RGB", "p.ppm"), ("RGB", "p.avif"), ("RGBA", "p.png"),
        ("RGBA", "p.webp"), ("RGBA", "p.tiff"), ("P", "p.png"), ("P", "p.gif"), ("CMYK", "p.jpg"),
        ("CMYK", "p.tiff"), ("YCbCr", "p.jpg"), ("YCbCr", "p.tiff"), ("LAB", "p.tiff"),
    ],
)  # fmt: skip
def test_a_colour_picture_keeps_its_colours_in_whatever_mode(
    tmp_path: Path, mode: str, name: str
) -> None:
    image = halves()
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
        assert converted is not None
        image = converted
    decoded = decode(saved(tmp_path, name, image.convert(mode) if mode != "LAB" else image))
    assert decoded.image.mode == "RGB"
    assert decoded.image.size == decoded.size == (96, 64)
    assert np.abs(sides(decoded) - [ORANGE, NAVY]).max() < 8


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "p.png"), ("L", "p.jpg"), ("LA", "p.png"), ("L", "p.tiff")]
)
def test_a_grey_picture_is_grey_in_all_channels(tmp_path: Path, mode: str, name: str) -> None:
    decoded = decode(saved(tmp_path, name, halves().convert(mode)))
    assert decoded.image.mode == "RGB"
    assert np.abs(sides(decoded) - np.array(GREYS)[:, None]).max() < 4


def test_a_picture_of_black_and_white_pixels_alone_is_read(tmp_path: Path) -> None:
    image = Image.new("1", (96, 64), 1)
    image.paste(0, (48, 0, 96, 64))
    assert sides(decode(saved(tmp_path, "p.png", image))).tolist() == [[255] * 3, [0] * 3]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("sixteen.png", deep(65535, np.uint16)),
        ("sixteen.tiff", deep(65535, np.uint16)),
        ("sixteen.ppm", deep(65535, np.uint16)),
        ("thirty-two.tiff", deep(65535, np.int32)),
        ("eight-in-thirty-two.tiff", deep(255, np.int32)),
        ("floats.tiff", deep(1.0, np.float32)),
    ],
)
def test_a_picture_with_deeper_pixels_keeps_its_brightness(
    tmp_path: Path, name: str, image: Image.Image
) -> None:
    decoded = decode(saved(tmp_path, name, image))
    assert decoded.image.mode == "RGB"
    assert np.abs(sides(decoded) - [[204] * 3, [51] * 3]).max() <= 1


def test_a_picture_with_brightness_beyond_white_is_scaled_into_range(tmp_path: Path) -> None:
    values = np.linspace(-2.0, 50.0, 96 * 64, dtype=np.float32).reshape(64, 96)
    values[0, 0] = np.nan
    pixels = np.asarray(decode(saved(tmp_path, "hdr.tiff", Image.fromarray(values))).image)
    assert pixels.min() == 0 and pixels.max() == 255
    assert (np.diff(pixels[1:, 50, 0].astype(int)) > 0).all()


@pytest.mark.parametrize("orientation", sorted(STORED_AS))
@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.webp"])
def test_a_picture_is_put_upright_by_its_orientation_tag(
    tmp_path: Path, orientation: int, name: str
) -> None:
    upright = a_photo(size=(160, 96))
    method = STORED_AS[orientation]
    stored = upright if method is None else upright.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if name == "p.png" else {"quality": 95} if name == "p.jpg" else {"lossless": True}
    decoded = decode(saved(tmp_path, name, stored, exif=exif, **options))
    assert decoded.size == stored.size
    assert decoded.image.size == upright.size
    difference = np.abs(np.asarray(decoded.image, float) - np.asarray(upright, float))
    assert difference.mean() < 12


def test_unreadable_metadata_does_not_make_a_photo_unusable(tmp_path: Path) -> None:
    file = saved(tmp_path, "p.jpg", halves(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.abs(sides(decode(file)) - [ORANGE, NAVY]).max() < 8


def test_what_is_transparent_becomes_white_whatever_colour_is_hidden_there(tmp_path: Path) -> None:
    image = Image.new("RGBA", (96, 64), (255, 0, 0, 0))
    image.paste((0, 0, 0, 128), (48, 0, 96, 64))
    clear, half = sides(decode(saved(tmp_path, "p.png", image))).round()
    assert clear.tolist() == [255] * 3
    assert half.tolist() == [127] * 3


@pytest.mark.parametrize("name", ["p.png", "p.gif"])
def test_the_transparent_entry_of_a_palette_becomes_white(tmp_path: Path, name: str) -> None:
    image = Image.new("P", (96, 64), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 48, 64))
    assert sides(decode(saved(tmp_path, name, image, transparency=0))).tolist() == [
        [255, 255, 255],
        [0, 0, 255],
    ]


def test_the_transparent_colour_of_a_picture_without_alpha_becomes_white(tmp_path: Path) -> None:
    file = saved(tmp_path, "p.png", halves(), transparency=ORANGE)
    assert sides(decode(file)).tolist() == [[255, 255, 255], list(NAVY)]


@pytest.mark.parametrize("name", ["p.gif", "p.png", "p.webp", "p.tiff"])
def test_of_an_animation_the_first_frame_is_used(tmp_path: Path, name: str) -> None:
    second = Image.new("RGB", (96, 64), (0, 255, 0))
    decoded = decode(saved(tmp_path, name, halves(), save_all=True, append_images=[second]))
    assert decoded.frames == 2
    assert np.abs(sides(decoded) - [ORANGE, NAVY]).max() < 12


def test_the_preview_that_phones_add_does_not_make_a_photo_an_animation(tmp_path: Path) -> None:
    file = tmp_path / "p.jpg"
    halves().save(file, "MPO", save_all=True, append_images=[halves().resize((48, 32))])
    decoded = decode(file)
    assert (decoded.format, decoded.frames) == ("JPEG", 1)
    assert decoded.image.size == (96, 64)


def test_colours_of_a_wide_profile_are_brought_to_those_of_screens(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # What this profile calls red is the screen's green.
    swapped = swap_tags(profile, b"rXYZ", b"gXYZ")
    red = Image.new("RGB", (96, 64), (255, 0, 0))
    decoded = decode(saved(tmp_path, "p.png", red, icc_profile=swapped))
    assert np.abs(sides(decoded) - [0, 255, 0]).max() <= 2
    layer = saved(tmp_path, "a.png", red.convert("RGBA"), icc_profile=swapped)
    assert np.abs(sides(decode(layer)) - [0, 255, 0]).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_a_broken_or_foreign_profile_leaves_the_colours_as_they_are(
    tmp_path: Path, mode: str
) -> None:
    plain = decode(saved(tmp_path, "plain.png", halves().convert(mode)))
    for profile in (b"nonsense", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()):
        file = saved(tmp_path, "p.png", halves().convert(mode), icc_profile=profile)
        assert decode(file).image.tobytes() == plain.image.tobytes()


def swap_tags(profile: bytes, one: bytes, other: bytes) -> bytes:
    """The profile with the names of two entries exchanged."""
    table = bytearray(profile)
    for number in range(struct.unpack_from(">I", table, 128)[0]):
        place = 132 + 12 * number
        name = bytes(table[place : place + 4])
        if name in (one, other):
            table[place : place + 4] = other if name == one else one
    return bytes(table)
