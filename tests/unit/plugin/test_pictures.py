"""Pictures on terminals of all kinds."""

import base64
import io
import re

import pytest
from PIL import Image

from kubectl_dreambooth.pictures import WAYS, best_way, blocks, iterm, kitty, show, sixel
from tests.unit.plugin.conftest import png


@pytest.mark.parametrize(
    ("environ", "way"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({}, "blocks"),
    ],
)
def test_a_terminal_is_known_by_what_it_says_of_itself(environ: dict[str, str], way: str) -> None:
    assert best_way(environ) == way


def test_kitty_gets_the_file_in_pieces() -> None:
    noise = Image.effect_noise((120, 90), 90).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, format="PNG")
    text = kitty(buffer.getvalue(), 80)
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert len(pieces) > 1
    assert pieces[0][0] == "a=T,f=100,c=80,m=1"
    assert [head for head, _ in pieces[1:]] == ["m=1"] * (len(pieces) - 2) + ["m=0"]
    assert all(len(data) <= 4096 for _, data in pieces)
    assert base64.b64decode("".join(data for _, data in pieces)) == buffer.getvalue()


def test_iterm_gets_the_file_whole() -> None:
    text = iterm(png(), 80)
    head, _, data = text.removesuffix("\a").partition(":")
    assert head == f"\x1b]1337;File=inline=1;size={len(png())};width=80;preserveAspectRatio=1"
    assert base64.b64decode(data) == png()


def test_sixels_have_every_pixel_once_in_its_colour() -> None:
    picture = Image.new("RGB", (10, 8), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, 10, 3))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    text = sixel(buffer.getvalue(), 80)
    assert text.startswith('\x1bP0;1q"1;1;10;8')
    assert text.endswith("\x1b\\")
    body = text.removeprefix('\x1bP0;1q"1;1;10;8').removesuffix("\x1b\\")
    colours = dict(re.findall(r"#(\d+);2;(\d+;\d+;\d+)", body))
    drawn = re.sub(r"#\d+;2;\d+;\d+;\d+", "", body)
    assert _painted(drawn, colours, 10, 8) == [
        ["100;0;0" if row < 3 else "0;0;100"] * 10 for row in range(8)
    ]


def _painted(drawn: str, colours: dict[str, str], width: int, height: int) -> list[list[str]]:
    """What a terminal would show."""
    canvas = [[""] * width for _ in range(height)]
    for band, line in enumerate(drawn.split("-")):
        for part in line.split("$"):
            colour, cells = re.match(r"#(\d+)(.*)", part).groups()  # type: ignore[union-attr]
            plain = re.sub(r"!(\d+)(.)", lambda m: m[2] * int(m[1]), cells)
            for column, cell in enumerate(plain):
                for bit in range(6):
                    if (ord(cell) - 63) >> bit & 1:
                        assert canvas[6 * band + bit][column] == ""
                        canvas[6 * band + bit][column] = colours[colour]
    return canvas


def test_half_blocks_show_two_pixels_a_character() -> None:
    picture = Image.new("RGB", (2, 2), (1, 2, 3))
    picture.putpixel((1, 1), (9, 8, 7))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    assert blocks(buffer.getvalue(), 80) == (
        "\x1b[38;2;1;2;3;48;2;1;2;3m▀\x1b[38;2;1;2;3;48;2;9;8;7m▀\x1b[0m"
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_ends_with_a_new_line(way: str) -> None:
    out = io.StringIO()
    show(png(size=(7, 5)), 80, out, way)
    assert out.getvalue().endswith("\n")
