"""Blur, flatness and likeness are told as people would tell them."""

import io
from collections.abc import Callable

import pytest
from PIL import Image, ImageEnhance, ImageFilter

from dreambooth.photos.inspect import BLURRED, is_flat, near, perceptual_hash, sharpness
from tests.unit.photos.pictures import a_landscape, a_photo


def recompressed(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=40)
    return Image.open(data).convert("RGB")


def test_a_photo_is_less_sharp_the_more_it_is_blurred() -> None:
    image = a_photo(size=(640, 480))
    figures = [
        sharpness(image.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 3, 9, 27)
    ]
    assert figures == sorted(figures, reverse=True)
    assert figures[0] > BLURRED > figures[-1]


def test_sharpness_does_not_depend_on_how_many_pixels_show_the_same() -> None:
    large = a_photo(size=(2048, 1536)).filter(ImageFilter.GaussianBlur(40))
    small = large.resize((512, 384), Image.Resampling.BOX)
    assert sharpness(large) == pytest.approx(sharpness(small), rel=0.2)
    assert sharpness(large) < BLURRED


@pytest.mark.parametrize("size", [(64, 64), (64, 400), (2048, 64)])
def test_the_smallest_and_the_narrowest_photos_can_be_judged(size: tuple[int, int]) -> None:
    image = a_photo(size=size)
    assert sharpness(image) > BLURRED
    assert not is_flat(image)
    assert near(perceptual_hash(image), perceptual_hash(image))


@pytest.mark.parametrize("colour", ["black", "white", (12, 200, 77)])
def test_one_even_colour_is_flat_and_anything_on_it_is_not(colour: str | tuple[int, ...]) -> None:
    image = Image.new("RGB", (256, 256), colour)
    assert is_flat(image)
    image.paste("red", (96, 96, 160, 160))
    assert not is_flat(image)


@pytest.mark.parametrize(
    "change",
    [
        recompressed,
        lambda image: image.resize((160, 120), Image.Resampling.BOX),
        lambda image: image.resize((1280, 960)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.85),
        lambda image: image.crop((1, 1, image.width - 1, image.height - 1)),
    ],
    ids=["saved again", "smaller", "larger", "darker", "a pixel less on each side"],
)
def test_the_same_photo_is_known_again_after(change: Callable[[Image.Image], Image.Image]) -> None:
    image = a_landscape()
    assert near(perceptual_hash(image), perceptual_hash(change(image)))


def test_different_photos_are_not_taken_for_the_same() -> None:
    photos = [draw(number) for number in range(20) for draw in (a_photo, a_landscape)]
    hashes = [perceptual_hash(photo) for photo in photos]
    alike = [(a, b) for a in range(40) for b in range(a) if near(hashes[a], hashes[b])]
    assert alike == []
