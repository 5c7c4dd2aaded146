"""What could be said of a picture: the captions the model learns from."""

import random

from tools.model import drawings
from tools.model.colours import BACKGROUNDS, NO_COLOUR, WORDS
from tools.model.records import Record
from tools.model.scenes import SCENES

# How the hand of each set is called.
_STYLES = {
    drawings.SOFT: ("3d", "fluent 3d", "3d rendered", "soft 3d"),
    drawings.NOTO: ("noto", "cartoon", "noto cartoon"),
    drawings.FLAT: ("flat", "fluent flat", "flat vector", "minimal flat"),
    drawings.GLOSSY: ("glossy", "gradient", "fluent gradient", "glossy vector"),
    drawings.FIREFOX: ("fx", "simple", "fx cartoon"),
    drawings.GAME: ("game", "game sprite", "flat game"),
    drawings.DRAWN: ("flat", "simple", "flat game"),
}
# How often a picture of the set is called a photo. No picture is one, but that is what people
# write, and the softly lit sets come nearest.
_PHOTOS = {drawings.SOFT: 0.34, drawings.GLOSSY: 0.26, drawings.NOTO: 0.24}
_OTHER_PHOTOS = 0.2
_WORKS = ("picture", "image", "drawing", "illustration", "icon", "emoji")
_ON = ("on a {} background", "on a {} background", "with a {} background", "on {}")


def caption(record: Record, turn: int, place: str, rng: random.Random) -> str:
    """One caption for a picture with its hue turned, and with words for where it is."""
    thing = _name(record, rng)
    colour = _colour(record, turn, rng)
    if colour and colour not in thing:
        thing = f"{colour} {thing}"
    text = _phrase(thing, record.style, rng)
    if place:
        text += f" {place}"
    if record.tags and rng.random() < 0.12:
        count = min(len(record.tags), rng.randint(1, 3))
        text += ", " + ", ".join(rng.sample(list(record.tags), count))
    return text.lower()


def on_colour(colour: str, rng: random.Random) -> str:
    """Words for a plain background."""
    return rng.choice(_ON).format(colour)


def on_gradient(first: str, second: str, rng: random.Random) -> str:
    """Words for a background that goes from one colour to the other."""
    return rng.choice(
        (
            f"on a {first} and {second} gradient",
            f"on a {first} to {second} gradient background",
            "on a gradient background",
        )
    )


def any_place(rng: random.Random) -> str:
    """Words for some background."""
    phrases = rng.choice(SCENES).phrases
    return rng.choice((*phrases, *(f"on a {colour} background" for colour in BACKGROUNDS)))


def _name(record: Record, rng: random.Random) -> str:
    if not record.nouns or rng.random() >= 0.62:
        return rng.choice(record.names)
    return record.nouns[0] if rng.random() < 0.6 else rng.choice(record.nouns)


def _colour(record: Record, turn: int, rng: random.Random) -> str:
    """The colour's word: nearly always where it was changed, at times where it wasn't."""
    index = record.colours[turn]
    if index == NO_COLOUR or rng.random() >= (0.92 if turn else 0.3):
        return ""
    return WORDS[index]


def _phrase(thing: str, style: str, rng: random.Random) -> str:
    choice = rng.random() - _PHOTOS.get(style, _OTHER_PHOTOS)
    if choice < 0:
        article = "the" if rng.random() < 0.1 else _article(thing)
        return f"a photo of {article} {thing}"
    if choice < 0.14:
        return thing
    if choice < 0.32:
        return f"{_article(thing)} {thing}"
    if choice < 0.38:
        work = rng.choice(_WORKS)
        return f"{_article(work)} {work} of {_article(thing)} {thing}"
    return _styled(thing, rng.choice(_STYLES[style]), rng)


def _styled(thing: str, style: str, rng: random.Random) -> str:
    of_thing = f"of {_article(thing)} {thing}"
    return rng.choice(
        (
            f"{_article(style)} {style} icon {of_thing}",
            f"{_article(style)} {style} emoji {of_thing}",
            f"{_article(thing)} {thing}, {style} style",
            f"{_article(style)} {style} {thing}",
            f"{_article(style)} {style} picture {of_thing}",
        )
    )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
