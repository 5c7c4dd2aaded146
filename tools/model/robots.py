"""Robots from head to feet, drawn by code: the emoji sets have robots' heads only."""

import random
from collections.abc import Iterable, Iterator

from tools.model.colours import VALUES
from tools.model.drawings import DRAWN, Drawing
from tools.model.names import Emoji, Group

COUNT = 48
_BODY = (
    *("gray", "gray", "blue", "light blue", "red", "orange", "yellow", "green", "purple"),
    *("teal", "white", "pink"),
)
_ACCENT = ("red", "orange", "yellow", "blue", "green", "teal")
_PUPIL, _VISOR, _MOUTH = "#202028", "#22262e", "#2c3038"


def draw_robots(count: int = COUNT) -> Iterator[Drawing]:
    """The same robots every time."""
    for number in range(count):
        rng = random.Random(number)
        source = _Robot(rng).svg().encode()
        tags = ("metal", "machine", "antenna") if rng.random() < 0.5 else ()
        yield Drawing(DRAWN, str(number), Emoji("robot", tags, Group.OBJECT), source)


class _Robot:
    """One robot of random proportions, colours and parts on a canvas of 128 by 128."""

    def __init__(self, rng: random.Random) -> None:
        self._parts: list[str] = []
        self._rng = rng
        base = VALUES[rng.choice(_BODY)]
        self.base = _hex(base)
        self.dark = _hex([value * 0.72 for value in base])
        self.feet = _hex([value * 0.5 for value in base])
        self.light = _hex([value + (255 - value) * 0.45 for value in base])
        self.accent = _hex(VALUES[rng.choice(_ACCENT)])
        self.centre = 64
        self.head = (rng.randint(36, 54), rng.randint(28, 40))
        self.body = (rng.randint(36, 52), rng.randint(32, 42))
        self.head_top = rng.randint(16, 20)
        self.body_top = self.head_top + self.head[1] + rng.randint(2, 5)
        self.body_end = self.body_top + self.body[1]
        self.corner = rng.choice([3, 7, 12])
        self.fill = self.base

    def svg(self) -> str:
        """The robot, from back to front."""
        if self._rng.random() < 0.5:
            self._shade()
        self._antenna()
        self._arms()
        self._legs()
        self._trunk()
        self._face()
        self._panel()
        space = 'xmlns="http://www.w3.org/2000/svg"'
        size = 'viewBox="0 0 128 128" width="128" height="128"'
        return f"<svg {space} {size}>{''.join(self._parts)}</svg>"

    def _box(self, x: float, y: float, wide: float, high: float, fill: str, round_: float) -> None:
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" rx="{round_}" fill="{fill}"/>'
        )

    def _disc(self, x: float, y: float, radius: float, fill: str) -> None:
        self._parts.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}"/>')

    def _shade(self) -> None:
        stops = f'<stop offset="0" stop-color="{self.light}"/>'
        stops += f'<stop offset="1" stop-color="{self.dark}"/>'
        gradient = f'<linearGradient id="g" x1="0" y1="0" x2="0" y2="1">{stops}</linearGradient>'
        self._parts.append(f"<defs>{gradient}</defs>")
        self.fill = "url(#g)"

    def _antenna(self) -> None:
        self._box(self.centre - 1.5, self.head_top - 9, 3, 10, self.dark, 1)
        self._disc(self.centre, self.head_top - 10, 4, self.accent)

    def _arms(self) -> None:
        width = self._rng.randint(8, 12)
        angles = self._rng.choice([(0, 0), (0, -28), (14, 14), (-20, 20)])
        for side, angle in zip((-1, 1), angles, strict=True):
            x = self.centre + side * (self.body[0] / 2 + width / 2 + 1)
            turn = f"rotate({side * -angle} {x} {self.body_top + 4})"
            self._parts.append(f'<g transform="{turn}">')
            length = self.body[1] - 6
            self._box(x - width / 2, self.body_top + 3, width, length, self.dark, width / 2)
            self._disc(x, self.body_end - 2, width * 0.62, self.base)
            self._parts.append("</g>")

    def _legs(self) -> None:
        width = self._rng.randint(9, 14)
        stance = self._rng.choice([0, 0, 4, -4])
        for side in (-1, 1):
            x = self.centre + side * (self.body[0] / 4 + stance * 0.5)
            self._box(x - width / 2, self.body_end - 2, width, 116 - self.body_end, self.dark, 2)
            self._box(x - width / 2 - 3, 114, width + 6, 9, self.feet, 4)

    def _trunk(self) -> None:
        (head, head_high), (body, body_high) = self.head, self.body
        self._box(self.centre - 6, self.head_top + head_high - 2, 12, 8, self.dark, 1)
        x = self.centre - body / 2
        self._box(x, self.body_top, body, body_high, self.fill, self.corner)
        self._box(self.centre - head / 2, self.head_top, *self.head, self.fill, self.corner)
        for side in (-1, 1):
            ear = self.centre + side * (head / 2 + 2)
            self._box(ear - 3, self.head_top + head_high / 2 - 6, 6, 12, self.dark, 2)

    def _face(self) -> None:
        width, height = self.head
        y = self.head_top + height * 0.42
        kind = self._rng.choice(["two", "visor", "two", "one"])
        if kind == "two":
            for side in (-1, 1):
                x = self.centre + side * width * 0.23
                self._disc(x, y, height * 0.16, "#ffffff")
                self._disc(x, y, height * 0.09, self._rng.choice([_PUPIL, self.accent]))
        elif kind == "visor":
            top = self.head_top + height * 0.26
            left = self.centre - width * 0.38
            self._box(left, top, width * 0.76, height * 0.32, _VISOR, 5)
            for side in (-1, 1):
                self._disc(self.centre + side * width * 0.18, y, 3, self.accent)
        else:
            self._disc(self.centre, y, height * 0.22, "#ffffff")
            self._disc(self.centre, y, height * 0.13, self.accent)
        mouth = self.head_top + height * 0.72
        self._box(self.centre - width * 0.22, mouth, width * 0.44, 4, _MOUTH, 2)

    def _panel(self) -> None:
        width, height = self.body
        left, top = self.centre - width * 0.3, self.body_top + height * 0.22
        self._box(left, top, width * 0.6, height * 0.4, self.light, 3)
        lights = (self.accent, _hex(VALUES["green"]), _hex(VALUES["yellow"]))
        for place, colour in enumerate(lights):
            x = self.centre + (place - 1) * width * 0.18
            self._disc(x, self.body_top + height * 0.42, 2.6, colour)


def _hex(colour: Iterable[float]) -> str:
    return "#" + "".join(f"{int(max(0, min(255, value))):02x}" for value in colour)
