"""What is no usable picture is refused by name, with what to do, and never with anything else."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dreambooth.errors import UserError
from dreambooth.photos.decode import NotAPicture, decode
from dreambooth.photos.limits import MAX_EDGE
from tests.unit.photos.pictures import a_photo, picture_bytes

KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
FILES = {kind: picture_bytes(a_photo(size=(96, 80)), kind) for kind in KINDS}


def refusal(folder: Path, name: str, content: bytes) -> UserError:
    file = folder / name
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        decode(file)
    assert name in caught.value.message
    assert caught.value.field == "spec.subject.photos"
    assert caught.value.remedy
    return caught.value


def announces(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is `width` by `height`."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in (head, data, b"IEND")
    )


@pytest.mark.parametrize("size", [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (1_000_000, 300)])
def test_a_small_file_that_unpacks_to_a_huge_picture_is_not_unpacked(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    error = refusal(tmp_path, "bomb.png", announces(*size))
    assert "unpack" in error.message
    assert error.remedy == "Save it smaller."


def test_a_real_bomb_of_four_hundred_million_pixels_is_not_unpacked(tmp_path: Path) -> None:
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(b"\0" * 2501) for _ in range(20_000)) + rows.flush()
    head = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in (head, b"IDAT" + packed, b"IEND")
    )
    assert len(content) < 100_000
    assert "400 million pixels" in refusal(tmp_path, "bomb.png", content).message


def test_a_photo_of_the_largest_sensors_of_phones_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(picture_bytes(Image.new("L", (16_320, 12_240), 99), "JPEG"))
    decoded = decode(tmp_path / "p.jpg")
    assert decoded.size == (16_320, 12_240)
    assert decoded.image.size == (2048, 1536)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_photo_that_was_not_copied_to_its_end_is_refused(
    tmp_path: Path, kind: str, share: float
) -> None:
    whole = FILES[kind]
    error = refusal(tmp_path, f"half.{kind.lower()}", whole[: int(share * len(whole))])
    assert "damaged" in error.message
    assert "Copy the photo again" in str(error.remedy) or "Replace it" in str(error.remedy)


@given(data=st.data())
@settings(max_examples=300)
def test_damage_anywhere_gives_a_refusal_or_a_picture_and_never_another_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        # Headers are where decoders go wrong.
        end = data.draw(st.sampled_from([min(200, len(content)), len(content)]))
        content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / f"damaged.{kind.lower()}"
    file.write_bytes(content)
    try:
        decoded = decode(file)
    except UserError as error:
        assert file.name in error.message
    else:
        assert decoded.image.mode == "RGB"
        assert 1 <= max(decoded.image.size) <= MAX_EDGE


@pytest.mark.parametrize(
    ("name", "content", "words", "remedy"),
    [
        ("a.jpg", b"", "is empty", "Copy the photo again"),
        ("a.jpg", b"Dear Sir or Madam", "is no picture, in spite of its name", "Replace it"),
        ("a.PNG", b"%PDF-1.7 not a picture", "is no picture", "Replace it"),
        ("a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "is no picture", "Repl"),
        ("a.tiff", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS", "pull"),
        ("a.HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "cannot be read here (HEIC)", "as JPEG"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\2\0", "cannot be", "JPEG"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "(SVG)", "Save it as JPEG or PNG"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_picture_is_told_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, words: str, remedy: str
) -> None:
    error = refusal(tmp_path, name, content)
    assert words in error.message
    assert remedy in str(error.remedy)


@pytest.mark.parametrize("name", ["notes.txt", "README", "photo", "data.json"])
def test_a_file_that_does_not_claim_to_be_a_picture_is_not_called_a_bad_photo(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("text")
    with pytest.raises(NotAPicture, match=name):
        decode(tmp_path / name)


def test_a_picture_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    for name in ("photo", "photo.txt", "photo.png", "photo.heic"):
        (tmp_path / name).write_bytes(FILES["JPEG"])
        assert decode(tmp_path / name).format == "JPEG"


@pytest.mark.parametrize("size", [(63, 400), (400, 63), (1, 1)])
def test_a_photo_with_too_few_pixels_is_refused_with_how_many_it_needs(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    error = refusal(tmp_path, "tiny.png", picture_bytes(a_photo(size=size)))
    assert f"{size[0]} × {size[1]} pixels" in error.message
    assert "at least 64 pixels" in str(error.remedy)


@pytest.mark.parametrize("size", [(5000, 2500), (2500, 5000), (2049, 65)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_photo_is_made_smaller_and_keeps_its_shape(
    tmp_path: Path, size: tuple[int, int], kind: str
) -> None:
    file = tmp_path / "large"
    file.write_bytes(picture_bytes(a_photo(size=size), kind, **{"quality": 95}))
    decoded = decode(file)
    assert decoded.size == size
    assert max(decoded.image.size) == MAX_EDGE
    assert decoded.image.width / decoded.image.height == pytest.approx(size[0] / size[1], rel=0.02)
    small = a_photo(size=decoded.image.size)
    difference = np.asarray(decoded.image, float) - np.asarray(small, float)
    # The same squares: only their edges differ.
    assert np.median(np.abs(difference)) < 3


def test_a_photo_at_the_limit_is_left_as_it_is(tmp_path: Path) -> None:
    image = Image.new("RGB", (MAX_EDGE, 64), "teal")
    (tmp_path / "p.png").write_bytes(picture_bytes(image))
    assert decode(tmp_path / "p.png").image.tobytes() == image.tobytes()
