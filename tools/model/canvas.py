"""Brushes for simple pictures of places."""

import math
import random

from PIL import Image, ImageDraw

from tools.model.colours import VALUES

# Drawn twice as large as used, then scaled down: smooth edges.
SIDE = 256

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)


class Canvas:
    """A picture in the making, with the chance that makes each one different."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.image = Image.new("RGB", (SIDE, SIDE))
        self.draw = ImageDraw.Draw(self.image)
        self.horizon = self.rng.randint(130, 170)

    def near(self, colour: Colour, by: float = 14) -> Colour:
        """A colour close to this one."""
        red, green, blue = (
            int(min(255, max(0, value + self.rng.uniform(-by, by)))) for value in colour
        )
        return red, green, blue

    def value(self, *names: str) -> Colour:
        """The value of one of these colours."""
        return VALUES[self.rng.choice(names)]

    def anywhere(self) -> tuple[int, int]:
        """A place on the canvas."""
        return self.rng.randint(0, SIDE), self.rng.randint(0, SIDE)

    def fill(self, colour: Colour, top: float = 0) -> None:
        """Everything from `top` down."""
        self.draw.rectangle((0, top, SIDE, SIDE), fill=colour)

    def gradient(self, top: Colour, bottom: Colour) -> None:
        """Everything, from one colour to the other."""
        for y in range(SIDE):
            share = y / (SIDE - 1)
            mixed = [int(a + (b - a) * share) for a, b in zip(top, bottom, strict=True)]
            self.draw.line((0, y, SIDE, y), fill=tuple(mixed))

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle."""
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def hills(self, colour: Colour, base: float, height: float) -> None:
        """Ground with a wavy edge around `base`."""
        phase, waves = self.rng.uniform(0, 6.3), self.rng.uniform(0.6, 1.4)
        edge = [
            (x, base + height * math.sin(phase + waves * x / SIDE * 2 * math.pi))
            for x in range(0, SIDE + 8, 8)
        ]
        self.draw.polygon([(0, SIDE), *edge, (SIDE, SIDE)], fill=colour)

    def cloud(self, x: float, y: float, size: float) -> None:
        """A white cloud."""
        for dx, dy, radius in ((-0.6, 0.1, 0.5), (0, -0.1, 0.7), (0.6, 0.1, 0.5), (0, 0.2, 0.6)):
            left, right = x + (dx - radius) * size, x + (dx + radius) * size
            top, bottom = y + (dy - radius * 0.6) * size, y + (dy + radius * 0.6) * size
            self.draw.ellipse((left, top, right, bottom), fill=WHITE)

    def pine(self, x: float, y: float, height: float, colour: Colour) -> None:
        """A conifer that stands at (x, y)."""
        trunk = (x - height * 0.05, y - height * 0.2, x + height * 0.05, y)
        self.draw.rectangle(trunk, fill=(95, 65, 45))
        for layer in range(3):
            half = height * (0.28 - 0.05 * layer)
            low, high = y - height * (0.12 + 0.25 * layer), y - height * (0.5 + 0.25 * layer)
            self.draw.polygon([(x - half, low), (x + half, low), (x, high)], fill=colour)

    def buildings(
        self, ground: int, colour: Colour, windows: Colour, heights: tuple[int, int]
    ) -> None:
        """A row of houses with lit windows."""
        left = -10
        while left < SIDE:
            width, height = self.rng.randint(24, 50), self.rng.randint(*heights)
            wall = (left, ground - height, left + width, ground)
            self.draw.rectangle(wall, fill=self.near(colour, 25))
            for y in range(ground - height + 8, ground - 10, 14):
                for x in range(left + 5, left + width - 7, 11):
                    self.draw.rectangle((x, y, x + 5, y + 7), fill=windows)
            left += width + self.rng.randint(0, 4)
