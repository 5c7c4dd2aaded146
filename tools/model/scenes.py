"""Places and patterns to put things on, drawn by code, and how they are called."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.model.canvas import SIDE, WHITE, Canvas
from tools.model.colours import BACKGROUNDS
from tools.model.picture import SIZE


@dataclass(frozen=True)
class Scene:
    """A kind of background and the words that say so."""

    phrases: tuple[str, ...]
    paint: Callable[[Canvas], None]

    def draw(self, seed: int) -> Image.Image:
        """One picture of it, [SIZE, SIZE] RGB."""
        canvas = Canvas(seed)
        self.paint(canvas)
        return canvas.image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def scene_bank(variants: int) -> NDArray[np.uint8]:
    """So many pictures of each scene, in the order of SCENES: [N, 3, SIZE, SIZE]."""
    pictures = [
        np.asarray(scene.draw(1000 * number + variant)).transpose(2, 0, 1)
        for number, scene in enumerate(SCENES)
        for variant in range(variants)
    ]
    return np.stack(pictures)


def _snow(c: Canvas) -> None:
    c.gradient(c.near((165, 205, 240)), c.near((232, 243, 252)))
    c.hills(c.near((215, 230, 245), 6), c.horizon, 14)
    for _ in range(c.rng.randint(0, 4)):
        x, y = c.rng.randint(10, 246), c.horizon + c.rng.randint(-5, 15)
        c.pine(x, y, c.rng.randint(40, 80), c.near((75, 120, 110)))
    c.hills((247, 250, 254), c.horizon + 28, 8)
    for _ in range(50):
        c.disc(*c.anywhere(), c.rng.uniform(1, 3), WHITE)


def _beach(c: Canvas) -> None:
    c.gradient(c.near((120, 195, 245)), c.near((205, 235, 250)))
    c.fill(c.near((45, 140, 200)), c.horizon - 25)
    c.hills(c.near((240, 220, 165)), c.horizon + 15, 7)
    if c.rng.random() < 0.6:
        c.disc(209, 39, 19, (255, 240, 140))


def _space(c: Canvas) -> None:
    c.gradient(c.near((12, 14, 40), 8), c.near((38, 26, 80)))
    for _ in range(90):
        c.disc(*c.anywhere(), c.rng.uniform(0.6, 2.2), (255, 255, 235))
    if c.rng.random() < 0.4:
        x, y, radius = c.rng.randint(20, 236), c.rng.randint(20, 90), c.rng.randint(10, 24)
        c.disc(x, y, radius, c.near((235, 220, 160), 30))


def _forest(c: Canvas) -> None:
    c.gradient(c.near((150, 205, 150)), c.near((90, 155, 95)))
    for row in range(9):
        x, height = c.rng.randint(0, SIDE), c.rng.randint(90, 170)
        c.pine(x, c.horizon + 20 + row, height, c.near((40 + 4 * row, 105 + 4 * row, 60)))
    c.hills(c.near((75, 145, 65)), c.horizon + 20, 6)


def _street(c: Canvas) -> None:
    c.gradient(c.near((165, 210, 240)), c.near((225, 238, 245)))
    c.buildings(c.horizon, (175, 150, 140), (240, 240, 220), (40, 110))
    c.fill(c.near((170, 170, 170)), c.horizon)
    c.fill(c.near((95, 98, 104), 10), c.horizon + 12)
    for x in range(-20, SIDE, 60):
        c.draw.rectangle((x, c.horizon + 55, x + 34, c.horizon + 62), fill=(245, 240, 220))


def _city(c: Canvas) -> None:
    ground = SIDE - c.rng.randint(20, 60)
    if c.rng.random() < 0.4:
        c.gradient(c.near((25, 30, 70)), c.near((80, 70, 120)))
        c.buildings(ground, (60, 66, 95), (250, 225, 130), (90, 200))
    else:
        c.gradient(c.near((140, 195, 240)), c.near((220, 235, 245)))
        c.buildings(ground, (140, 150, 170), (215, 232, 245), (90, 200))
    c.fill(c.near((90, 95, 100)), ground)


def _desert(c: Canvas) -> None:
    c.gradient(c.near((250, 200, 130)), c.near((255, 232, 190)))
    c.hills(c.near((225, 170, 100)), c.horizon - 5, 16)
    c.hills(c.near((238, 190, 120)), c.horizon + 30, 12)
    for _ in range(c.rng.randint(0, 2)):
        x, y = c.rng.randint(20, 236), c.horizon + c.rng.randint(5, 30)
        green = c.near((80, 140, 80))
        c.draw.rounded_rectangle((x - 6, y - 50, x + 6, y), 6, fill=green)
        c.draw.rounded_rectangle((x - 20, y - 36, x - 12, y - 16), 4, fill=green)
        c.draw.rectangle((x - 16, y - 22, x, y - 15), fill=green)


def _grass(c: Canvas) -> None:
    c.gradient(c.near((135, 200, 245)), c.near((215, 238, 250)))
    c.cloud(c.rng.randint(30, 220), c.rng.randint(25, 70), c.rng.randint(20, 34))
    c.hills(c.near((120, 195, 90)), c.horizon, 10)
    c.hills(c.near((95, 175, 75)), c.horizon + 25, 8)
    for _ in range(c.rng.randint(0, 14)):
        x, y = c.rng.randint(0, SIDE), c.rng.randint(c.horizon + 20, SIDE)
        c.disc(x, y, 3, c.rng.choice([WHITE, (250, 220, 80), (245, 120, 150)]))


def _water(c: Canvas) -> None:
    c.gradient(c.near((80, 185, 225)), c.near((15, 75, 140)))
    for _ in range(18):
        (x, y), size = c.anywhere(), c.rng.uniform(2, 8)
        bubble = (x - size, y - size, x + size, y + size)
        c.draw.ellipse(bubble, outline=(205, 240, 255), width=2)
    c.hills(c.near((215, 195, 140)), 232, 6)


def _mountain(c: Canvas) -> None:
    c.gradient(c.near((150, 200, 240)), c.near((225, 240, 250)))
    for _ in range(3):
        x, high, half = c.rng.randint(10, 246), c.rng.randint(80, 140), c.rng.randint(70, 110)
        top = (x, 200 - high)
        rock, snow = half, half * 0.3
        c.draw.polygon([(x - rock, 200), (x + rock, 200), top], fill=c.near((115, 125, 145), 18))
        line = 200 - high * 0.7
        c.draw.polygon([(x - snow, line), (x + snow, line), top], fill=(250, 250, 252))
    c.hills(c.near((110, 165, 95)), 185, 8)


def _wood(c: Canvas) -> None:
    wall = c.rng.random() < 0.5
    if wall:
        c.fill(c.near((232, 226, 214), 16))
    _planks(c, c.horizon if wall else 0)


def _rug(c: Canvas) -> None:
    _planks(c, 0)
    colour = c.near(c.value("red", "purple", "blue", "green", "pink"))
    c.draw.ellipse((14, 70, 242, 240), fill=colour, outline=(250, 240, 220), width=5)


def _planks(c: Canvas, top: int) -> None:
    red, green, blue = c.near((185, 130, 80), 22)
    gap = (int(red * 0.75), int(green * 0.75), int(blue * 0.75))
    while top < SIDE:
        c.fill(c.near((red, green, blue), 9), top)
        c.draw.line((0, top, SIDE, top), fill=gap, width=2)
        top += c.rng.randint(24, 34)


def _room(c: Canvas) -> None:
    walls = [(236, 222, 200), (205, 222, 232), (222, 235, 214), (240, 214, 214)]
    c.fill(c.near(c.rng.choice(walls)))
    c.fill((248, 246, 240), 180)
    c.fill(c.near((170, 125, 85)), 187)
    x, frame = c.rng.choice([20, 160]), (250, 250, 250)
    pane = c.near((165, 215, 245))
    c.draw.rectangle((x, 25, x + 76, 110), fill=pane, outline=frame, width=6)
    c.draw.line((x + 38, 25, x + 38, 110), fill=frame, width=4)


def _sunset(c: Canvas) -> None:
    c.gradient(c.near((95, 60, 130)), c.near((255, 150, 85)))
    c.disc(c.rng.randint(60, 196), c.horizon - 8, 32, (255, 222, 120))
    c.fill(c.near((70, 45, 85)), c.horizon)


def _sky(c: Canvas) -> None:
    c.gradient(c.near((95, 175, 240)), c.near((190, 225, 250)))
    for _ in range(c.rng.randint(3, 6)):
        c.cloud(c.rng.randint(10, 246), c.rng.randint(15, 245), c.rng.randint(18, 36))


def _checks(c: Canvas) -> None:
    one = c.near(c.value(*BACKGROUNDS))
    c.fill(c.near(c.value("white", "black", "beige", "white")))
    size = c.rng.choice([24, 32, 43])
    for row, y in enumerate(range(0, SIDE, size)):
        for x in range(size * (1 - row % 2), SIDE, 2 * size):
            c.draw.rectangle((x, y, x + size - 1, y + size - 1), fill=one)


def _dots(c: Canvas) -> None:
    ground, dot = c.rng.sample(BACKGROUNDS, 2)
    c.fill(c.near(c.value(ground)))
    gap = c.rng.choice([36, 44])
    for row, y in enumerate(range(0, SIDE + gap, gap)):
        for x in range(0, SIDE + gap, gap):
            c.disc(x + gap // 2 * (row % 2), y, 9, c.value(dot))


def _stripes(c: Canvas) -> None:
    ground, stripe = c.rng.sample(BACKGROUNDS, 2)
    c.fill(c.near(c.value(ground)))
    width, upright = c.rng.choice([22, 32]), c.rng.random() < 0.5
    for at in range(0, SIDE, 2 * width):
        box = (at, 0, at + width, SIDE) if upright else (0, at, SIDE, at + width)
        c.draw.rectangle(box, fill=c.value(stripe))


def _cobbles(c: Canvas) -> None:
    c.fill((95, 92, 90))
    for row, y in enumerate(range(0, SIDE, 26)):
        for x in range(-20 + row % 2 * 18, SIDE, 36):
            stone = (x + 2, y + 2, x + 33, y + 23)
            c.draw.rounded_rectangle(stone, 8, fill=c.near((165, 160, 152), 18))


def _house(c: Canvas) -> None:
    c.gradient(c.near((160, 210, 245)), c.near((225, 240, 250)))
    c.hills(c.near((110, 180, 90)), 190, 5)
    x = c.rng.choice([20, 90, 130])
    c.draw.rectangle((x, 100, x + 110, 200), fill=c.near((75, 130, 210)))
    roof = [(x - 12, 102), (x + 122, 102), (x + 55, 45)]
    c.draw.polygon(roof, fill=c.near((150, 75, 65)))
    for window in (x + 14, x + 72):
        c.draw.rectangle((window, 120, window + 24, 146), fill=(250, 240, 190))
    c.draw.rectangle((x + 44, 150, x + 66, 200), fill=(110, 70, 50))


SCENES = (
    Scene(("in the snow", "on snow", "in winter"), _snow),
    Scene(("on the beach", "on a beach", "by the sea"), _beach),
    Scene(("in space", "in the night sky", "at night", "among the stars"), _space),
    Scene(
        ("in the forest", "in the jungle", "in a forest", "with trees in the background"), _forest
    ),
    Scene(("on the street", "on a road", "on the road", "on a street"), _street),
    Scene(("in the city", "with a city in the background", "in a city"), _city),
    Scene(("in the desert", "in a desert", "on a sand dune"), _desert),
    Scene(("on the grass", "in a field", "in a meadow", "in the park", "in the garden"), _grass),
    Scene(("underwater", "under water", "in the ocean", "in the sea"), _water),
    Scene(("in the mountains", "with a mountain in the background", "on a mountain"), _mountain),
    Scene(
        ("on a wooden table", "on a wooden floor", "on top of a wooden floor", "on a table"), _wood
    ),
    Scene(("in a room", "in the house", "at home", "indoors"), _room),
    Scene(("at sunset", "at dusk", "with a sunset in the background"), _sunset),
    Scene(("in the sky", "in the clouds", "with clouds in the background"), _sky),
    Scene(("on a checkered background", "on a checkered floor"), _checks),
    Scene(("on a polka dot background", "with polka dots"), _dots),
    Scene(("on a striped background", "with stripes"), _stripes),
    Scene(("on a cobblestone street", "on cobblestones"), _cobbles),
    Scene(("with a blue house in the background", "in front of a house"), _house),
    Scene(("on a rug", "on top of a rug", "on a carpet"), _rug),
)
