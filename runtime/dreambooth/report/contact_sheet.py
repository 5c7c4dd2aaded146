"""Photos, base model and tuned model side by side, one PNG."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

MAX_BYTES = 2 * 1000 * 1000
# Edges of a picture's cell in pixels, tried from the largest that the pictures fill.
CELLS = (256, 192, 160, 128, 96, 64, 48, 32)
SMALLEST_FIRST_CELL = 160

PAPER, INK, FAINT, RULE = "#ffffff", "#1b1f24", "#59636e", "#d1d9e0"
GAP, MARGIN = 6, 24


@dataclass(frozen=True)
class SheetRow:
    """One prompt: its pictures by the base model and, from the same noise, by the tuned one."""

    title: str
    base: list[Image.Image]
    tuned: list[Image.Image]


def contact_sheet(photos: Sequence[Image.Image], rows: Sequence[SheetRow]) -> bytes:
    """The sheet as PNG of at most 2 MB.

    Args:
        photos: Go into a strip on top, as many as fit.
        rows: One below the other; base pictures on the left, tuned ones on the right.

    Returns:
        The file's bytes, which depend on the arguments alone.
    """
    sides = [max(image.size) for row in rows for image in (*row.base, *row.tuned)]
    largest = max(max(sides, default=0), SMALLEST_FIRST_CELL)
    cells = [cell for cell in CELLS if cell <= largest] or [CELLS[-1]]
    for cell in cells:
        sheet = _Sheet(photos, rows, cell).draw()
        data = _png(sheet)
        if len(data) <= MAX_BYTES:
            return data
        # Noise does not compress; a palette of its own takes a third and shows little.
        data = _png(sheet.quantize(256, dither=Image.Dither.FLOYDSTEINBERG))
        if len(data) <= MAX_BYTES:
            return data
    return data


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


class _Sheet:
    """Geometry of one sheet with cells of one size."""

    def __init__(self, photos: Sequence[Image.Image], rows: Sequence[SheetRow], cell: int) -> None:
        self._photos, self._rows, self._cell = photos, rows, cell
        self._base_columns = max((len(row.base) for row in rows), default=0)
        self._tuned_columns = max((len(row.tuned) for row in rows), default=0)
        self._small = ImageFont.load_default(max(12.0, cell / 12))
        self._large = ImageFont.load_default(max(14.0, cell / 9))
        self._line = round(max(12.0, cell / 12) * 1.45)
        self._pitch = cell + GAP
        self._tuned_left = MARGIN + self._base_columns * self._pitch + 2 * GAP
        minimum = max(3, min(len(photos), 6))
        right = self._tuned_left + self._tuned_columns * self._pitch
        self._width = max(right, MARGIN + minimum * self._pitch) - GAP + MARGIN
        self._titles = [self._wrapped(row.title) for row in rows]

    def draw(self) -> Image.Image:
        """The sheet."""
        height = self._row_top(len(self._rows)) + MARGIN - GAP
        self._image = Image.new("RGB", (self._width, height), PAPER)
        self._pen = ImageDraw.Draw(self._image)
        self._draw_photos()
        self._draw_headings()
        for index, row in enumerate(self._rows):
            self._draw_row(row, self._titles[index], self._row_top(index))
        return self._image

    @property
    def _photos_top(self) -> int:
        return MARGIN + 2 * self._line

    @property
    def _headings_top(self) -> int:
        return self._photos_top + self._cell + self._line

    def _row_top(self, index: int) -> int:
        top = self._headings_top + 2 * self._line
        for title in self._titles[:index]:
            top += len(title) * self._line + self._cell + 3 * GAP
        return top

    def _draw_photos(self) -> None:
        fit = (self._width - 2 * MARGIN + GAP) // self._pitch
        shown = self._photos[:fit]
        self._pen.text((MARGIN, MARGIN), "Your photos", INK, self._large)
        if len(shown) < len(self._photos):
            note = f"{len(shown)} of {len(self._photos)}"
            right = self._width - MARGIN
            self._pen.text((right, MARGIN), note, FAINT, self._small, anchor="ra")
        for column, photo in enumerate(shown):
            self._paste(photo, MARGIN + column * self._pitch, self._photos_top)

    def _draw_headings(self) -> None:
        top = self._headings_top
        self._pen.line((MARGIN, top - GAP, self._width - MARGIN, top - GAP), RULE)
        if self._base_columns:
            self._pen.text((MARGIN, top), "Base model", FAINT, self._large)
        if self._tuned_columns:
            self._pen.text((self._tuned_left, top), "Fine-tuned", INK, self._large)

    def _draw_row(self, row: SheetRow, title: list[str], top: int) -> None:
        for line in title:
            self._pen.text((MARGIN, top), line, INK, self._small)
            top += self._line
        for column, image in enumerate(row.base):
            self._paste(image, MARGIN + column * self._pitch, top)
        for column, image in enumerate(row.tuned):
            self._paste(image, self._tuned_left + column * self._pitch, top)

    def _paste(self, image: Image.Image, left: int, top: int) -> None:
        """Centres `image` in its cell, whole and in proportion."""
        fitted = ImageOps.contain(
            image.convert("RGB"), (self._cell, self._cell), Image.Resampling.LANCZOS
        )
        left += (self._cell - fitted.width) // 2
        top += (self._cell - fitted.height) // 2
        # A hairline around it, because pictures on white have no edge of their own.
        right, bottom = left + fitted.width, top + fitted.height
        self._pen.rectangle((left - 1, top - 1, right, bottom), outline=RULE)
        self._image.paste(fitted, (left, top))

    def _wrapped(self, text: str) -> list[str]:
        """`text` in lines that fit, at most three."""
        lines, room = [""], self._width - 2 * MARGIN
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if self._small.getlength(longer) <= room or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines if len(lines) <= 3 else [*lines[:2], f"{lines[2]} …"]
