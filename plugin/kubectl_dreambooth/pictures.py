"""Pictures on the terminal, by whatever the terminal understands."""

import base64
import io
import os
from collections.abc import Callable, Mapping
from typing import TextIO

from PIL import Image

# Bytes that kitty takes at once.
KITTY_CHUNK = 4096
# Pixels a column of text has, about; only sixel needs to know.
COLUMN_PIXELS = 10
UPPER_HALF = "▀"


def best_way(environ: Mapping[str, str] = os.environ) -> str:
    """How this terminal shows pictures, by what it says of itself; `blocks` works everywhere."""
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if environ.get("TMUX") or term.startswith(("screen", "tmux")):
        # What lies between would swallow the others.
        return "blocks"
    if "kitty" in term or environ.get("KITTY_WINDOW_ID") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    if "sixel" in term or term in ("foot", "foot-direct", "mlterm", "yaft-256color"):
        return "sixel"
    return "blocks"


def show(png: bytes, columns: int, out: TextIO, way: str) -> None:
    """Draws a picture `columns` wide.

    Args:
        png: The picture.
        columns: Width in characters.
        out: The terminal.
        way: A key of `WAYS`.
    """
    out.write(WAYS[way](png, columns))
    out.write("\n")
    out.flush()


def kitty(png: bytes, columns: int) -> str:
    """The graphics protocol of kitty: the file itself, in pieces."""
    data = base64.b64encode(png).decode()
    pieces = [data[start : start + KITTY_CHUNK] for start in range(0, len(data), KITTY_CHUNK)]
    parts = []
    for number, piece in enumerate(pieces):
        more = int(number + 1 < len(pieces))
        head = f"a=T,f=100,c={columns},m={more}" if number == 0 else f"m={more}"
        parts.append(f"\x1b_G{head};{piece}\x1b\\")
    return "".join(parts)


def iterm(png: bytes, columns: int) -> str:
    """The inline images of iTerm2: the file itself."""
    data = base64.b64encode(png).decode()
    options = f"inline=1;size={len(png)};width={columns};preserveAspectRatio=1"
    return f"\x1b]1337;File={options}:{data}\a"


def sixel(png: bytes, columns: int) -> str:
    """DEC's sixels: 256 colours, six rows at a time, repeats shortened."""
    picture = _resized(png, columns * COLUMN_PIXELS).quantize(256)
    width, height = picture.size
    palette = picture.getpalette() or []
    used = sorted(index for _, index in picture.getcolors(256) or [] if isinstance(index, int))
    colours = [
        f"#{index};2;" + ";".join(str(round(value / 2.55)) for value in palette[3 * index :][:3])
        for index in used
    ]
    pixels = picture.tobytes()
    bands = []
    for top in range(0, height, 6):
        rows = [pixels[row * width : (row + 1) * width] for row in range(top, min(top + 6, height))]
        present = sorted(set(b"".join(rows)))
        bands.append("$".join(f"#{index}{_band(rows, index, width)}" for index in present))
    return f'\x1bP0;1q"1;1;{width};{height}{"".join(colours)}{"-".join(bands)}\x1b\\'


def blocks(png: bytes, columns: int) -> str:
    """Half-block characters in true colour: two pixels each."""
    picture = _resized(png, columns)
    width, height = picture.size
    pixels = picture.tobytes()
    lines = []
    for top in range(0, height - 1, 2):
        line, last = [], ""
        for column in range(width):
            upper, lower = (pixels[3 * (row * width + column) :][:3] for row in (top, top + 1))
            colour = (
                f"\x1b[38;2;{upper[0]};{upper[1]};{upper[2]};48;2;{lower[0]};{lower[1]};{lower[2]}m"
            )
            line.append(UPPER_HALF if colour == last else colour + UPPER_HALF)
            last = colour
        lines.append("".join(line) + "\x1b[0m")
    return "\n".join(lines)


WAYS: dict[str, Callable[[bytes, int], str]] = {
    "kitty": kitty,
    "iterm": iterm,
    "sixel": sixel,
    "blocks": blocks,
}


def _resized(png: bytes, width: int) -> Image.Image:
    """The picture in RGB, at most `width` pixels wide, with an even number of rows."""
    with Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGB")
    width = min(width, picture.width)
    height = max(2, round(picture.height * width / picture.width))
    return picture.resize((width, height + height % 2), Image.Resampling.LANCZOS)


def _band(rows: list[bytes], index: int, width: int) -> str:
    """Six rows of one colour: a character a column, runs as `!count character`."""
    bits = [0] * width
    for row, line in enumerate(rows):
        for column, found in enumerate(line):
            if found == index:
                bits[column] |= 1 << row
    parts, start = [], 0
    while start < width:
        end = start
        while end < width and bits[end] == bits[start]:
            end += 1
        character, count = chr(63 + bits[start]), end - start
        parts.append(character * count if count < 4 else f"!{count}{character}")
        start = end
    return "".join(parts)
