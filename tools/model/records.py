"""What is known about each picture: how it may be called and how often it is shown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from tools.model import drawings
from tools.model.colours import dominant_colours
from tools.model.drawings import Drawing
from tools.model.names import Group
from tools.model.vocabulary import class_nouns, is_body_part


@dataclass(frozen=True)
class Record:
    """One picture.

    Attributes:
        style: The set it is from.
        names: What it shows, in the words of the set.
        nouns: Class nouns, the plainer words for it.
        tags: Words that go with it.
        weight: How often it is drawn, relative to the others.
        colours: Its dominant colour for each turn of the hue.
        recolour: Whether it is still what it is called in another hue.
    """

    style: str
    names: Sequence[str]
    nouns: Sequence[str]
    tags: Sequence[str]
    weight: float
    colours: Sequence[int]
    recolour: bool


_RECOLOURED_GROUPS = (Group.ANIMAL, Group.FOOD, Group.PLACE, Group.ACTIVITY, Group.OBJECT)
_FANTASTIC = re.compile(r"robot|alien|ghost|monster|ogre|goblin|zombie")


def describe(drawing: Drawing, image: Image.Image) -> Record | None:
    """The record of a drawing; None if the model is not to learn it."""
    group = _group(drawing)
    if group is None:
        return None
    key = drawing.key.replace("-", " ").lower()
    unnamed = drawing.emoji.group is Group.UNKNOWN
    name = _spoken(key if unnamed else drawing.emoji.label)
    animal = re.sub(r" face$", "", name)
    names = (animal, name) if group is Group.ANIMAL and animal != name else (name,)
    nouns = class_nouns(name, group)
    return Record(
        style=drawing.style,
        names=names,
        nouns=nouns,
        tags=[tag for tag in drawing.emoji.tags if tag.isascii()][:8],
        weight=round(_weight(drawing.style, name, nouns, group), 3),
        colours=dominant_colours(image),
        recolour=group in _RECOLOURED_GROUPS or bool(_FANTASTIC.search(name)),
    )


_NO_PICTURE = re.compile(
    r"letter|exclamation|keycap|pound|medium|flag|hair(ed)?-|^u[0-9a-f]{4}",
)


def _group(drawing: Drawing) -> Group | None:
    """The drawing's group, guessed by its key where it isn't on the list; None to leave it out."""
    group, key = drawing.emoji.group, drawing.key.lower()
    if drawing.style == drawings.FIREFOX and key.startswith(("flag", "clock", "u1f")):
        return None
    if group is Group.SYMBOL and re.search(r"button|arrow|sign\b", drawing.emoji.label.lower()):
        return None
    if group is not Group.UNKNOWN:
        return group
    if _NO_PICTURE.search(key):
        return None
    if drawing.style in (drawings.FLAT, drawings.GLOSSY):
        if re.match(r"^(man|woman|person)-", key):
            return Group.PERSON
        if key.endswith("face"):
            return Group.FACE
    return group


def _spoken(label: str) -> str:
    label = re.sub(r"[“”]", "", label.lower()).replace("’", "'")
    return label.replace(":", " ").replace("  ", " ")


_GROUP_WEIGHT = {
    Group.FACE: 0.6,
    Group.PERSON: 0.45,
    Group.ANIMAL: 1.6,
    Group.FOOD: 1.2,
    Group.PLACE: 1.2,
    Group.ACTIVITY: 1.1,
    Group.OBJECT: 1.1,
    Group.SYMBOL: 0.45,
    Group.FLAG: 0.5,
}
_STYLE_WEIGHT = {drawings.SOFT: 1.3, drawings.FLAT: 0.8, drawings.FIREFOX: 0.8}
# Nouns people fine-tune on first: what isn't seen often isn't drawn well.
_NOUN_WEIGHT = {
    "robot": 10.0,
    "zombie": 5.0,
    "ghost": 5.0,
    "dog": 4.0,
    "car": 4.0,
    "tree": 4.0,
    "alien": 3.0,
    "cat": 2.5,
    "monster": 1.5,
    "flower": 1.5,
    "fish": 1.5,
    "bird": 1.2,
    "person": 1.0,
}
_OTHER_NOUN_WEIGHT = 1.3


def _weight(style: str, name: str, nouns: Sequence[str], group: Group) -> float:
    weight = 0.35 if is_body_part(name, group) else _GROUP_WEIGHT.get(group, 0.6)
    weight *= _STYLE_WEIGHT.get(style, 1.0)
    weight *= max([_NOUN_WEIGHT.get(noun, _OTHER_NOUN_WEIGHT) for noun in nouns], default=1.0)
    return weight / 2 if "cat" in nouns and group is Group.FACE else weight
