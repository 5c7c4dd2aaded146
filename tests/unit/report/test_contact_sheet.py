"""The contact sheet shows what it was given, where people look for it."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageFont

from dreambooth.report.contact_sheet import MAX_BYTES, SheetRow, contact_sheet


def plain(*colours: str, size: tuple[int, int] = (64, 64)) -> list[Image.Image]:
    return [Image.new("RGB", size, colour) for colour in colours]


def noise(count: int, side: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    shape = (side, side, 3)
    return [Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def box(sheet: Image.Image, colour: str) -> tuple[int, int, int, int]:
    """The box around all pixels of one colour."""
    wanted = Image.new("RGB", (1, 1), colour).getpixel((0, 0))
    rows, columns = np.nonzero((np.asarray(sheet) == wanted).all(axis=-1))
    assert rows.size, f"no pixel is {colour}"
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_photos_are_on_top_base_pictures_left_and_tuned_ones_right() -> None:
    rows = [
        SheetRow("a robot in the snow", plain("blue"), plain("lime")),
        SheetRow("a robot on the moon", plain("cyan"), plain("magenta")),
    ]
    sheet = opened(contact_sheet(plain("red", "yellow"), rows))
    red, yellow = box(sheet, "red"), box(sheet, "yellow")
    blue, lime = box(sheet, "blue"), box(sheet, "lime")
    cyan, magenta = box(sheet, "cyan"), box(sheet, "magenta")
    assert red[1] == yellow[1] < blue[1] == lime[1] < cyan[1] == magenta[1]
    assert red[0] < yellow[0]
    assert blue[0] == cyan[0] < lime[0] == magenta[0]


def test_every_picture_is_whole_and_in_proportion() -> None:
    wide = plain("red", size=(400, 100))
    sheet = opened(contact_sheet(wide, [SheetRow("p", plain("blue"), plain("lime"))]))
    left, top, right, bottom = box(sheet, "red")
    assert (right - left) == 4 * (bottom - top)
    left, top, right, bottom = box(sheet, "lime")
    assert (right - left) == (bottom - top) == 160


def test_prompts_are_written_above_their_pictures() -> None:
    def ink(title: str) -> int:
        row = SheetRow(title, plain("blue"), plain("lime"))
        sheet = np.asarray(opened(contact_sheet(plain("red"), [row])).convert("L"))
        return int((sheet < 60).sum())

    assert ink("a robot in the snow") > ink("")


def test_a_long_prompt_wraps_and_any_letters_are_taken() -> None:
    def height(title: str) -> int:
        row = SheetRow(title, plain("blue"), plain("lime"))
        return opened(contact_sheet(plain("red"), [row])).height

    assert height("a robot " * 20) > height("a robot")
    assert height("ein Röböter im Schnee, 雪の中のロボット, рoбот 🤖") >= height("a robot")


def test_more_photos_than_fit_are_counted_not_squeezed() -> None:
    many = plain(*["red"] * 30)
    rows = [SheetRow("p", plain("blue"), plain("lime"))]
    assert opened(contact_sheet(many, rows)).width == opened(contact_sheet(many[:6], rows)).width


@pytest.mark.parametrize(
    ("photos", "rows"),
    [([], []), (plain("red"), []), ([], [SheetRow("p", [], plain("lime"))])],
)
def test_what_is_missing_leaves_its_place_empty(
    photos: Sequence[Image.Image], rows: Sequence[SheetRow]
) -> None:
    assert opened(contact_sheet(photos, rows)).width > 160


def test_a_sheet_stays_below_two_megabytes_whatever_is_on_it() -> None:
    rows = [SheetRow(f"prompt {n}", noise(4, 256), noise(4, 256)) for n in range(6)]
    data = contact_sheet(noise(5, 256), rows)
    assert len(data) <= MAX_BYTES
    assert opened(data).height > 6 * 100


def test_equal_pictures_give_equal_bytes() -> None:
    rows = [SheetRow("p", plain("blue"), plain("lime"))]
    assert contact_sheet(plain("red"), rows) == contact_sheet(plain("red"), rows)


def test_the_font_needs_no_file_of_the_system() -> None:
    assert isinstance(ImageFont.load_default(20), ImageFont.FreeTypeFont)
