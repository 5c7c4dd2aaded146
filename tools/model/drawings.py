"""The drawings that the packages have, with the names they are known by."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.model import sources
from tools.model.names import Emoji, EmojiNames, Group, is_a_thing, read_names
from tools.model.packages import Package, fetch, read_members
from tools.model.picture import SIZE

# Sets of drawings in one hand; captions name them.
SOFT, NOTO, FLAT, GLOSSY, FIREFOX, GAME, DRAWN = "3d", "noto", "flat", "gloss", "fx", "game", "draw"


@dataclass(frozen=True)
class Drawing:
    """A drawing as published.

    Attributes:
        style: One of the constants above.
        key: Its name within the set.
        source: SVG, PNG or WebP.
    """

    style: str
    key: str
    emoji: Emoji
    source: bytes


def collect(folder: Path) -> list[Drawing]:
    """All drawings of the packages, which are fetched into `folder`."""
    index = "package/en/data.json"
    names = read_names(_members(sources.EMOJIBASE, folder, re.escape(index))[index])
    icons = ((NOTO, sources.NOTO), (FLAT, sources.FLAT), (GLOSSY, sources.GLOSSY))
    drawings = list(soft_renders(_members(sources.SOFT, folder, r".*/assets/.*\.webp"), names))
    for style, package in (*icons, (FIREFOX, sources.FIREFOX)):
        (text,) = _members(package, folder, r"package/icons\.json").values()
        drawings += icon_set(style, text, names)
    images = r"arcade/resources/assets/images/(enemies|alien|items)/.*\.png"
    drawings += game_sprites(_members(sources.ARCADE, folder, images))
    return without_skin_tones(drawings)


def soft_renders(members: dict[str, bytes], names: EmojiNames) -> Iterator[Drawing]:
    """Pictures that are named by code points."""
    for path, source in members.items():
        code = Path(path).stem.lower()
        emoji = None if re.search("1f3f[b-f]", code) else names.of_code(code)
        if emoji and is_a_thing(emoji.label, emoji.group):
            yield Drawing(SOFT, code, emoji, source)


_SKIN_TONE = re.compile(r"(light|medium|dark)-skin-tone|-skin-tone|1f3f[b-f]")
_NOT_A_THING = re.compile(
    r"^flag|^family|^[0-9a-z]$|^emoji-u|-flag$|^couple-with-heart-|^kiss-|people-holding-hands"
    r"|holding-hands"
)


def icon_set(style: str, text: bytes, names: EmojiNames) -> Iterator[Drawing]:
    """Icons of an Iconify set, named by keys in English."""
    icons = json.loads(text)
    for key, icon in icons["icons"].items():
        if icon.get("hidden") or _SKIN_TONE.search(key) or _NOT_A_THING.search(key):
            continue
        emoji = names.of_key(key)
        words = key.replace("-", " ")
        if emoji is None and style == FIREFOX:
            continue  # its own keys are too far from what one would say
        emoji = emoji or Emoji(words)
        if not (is_a_thing(emoji.label, emoji.group) and is_a_thing(words, emoji.group)):
            continue
        box = [icon.get(name, icons.get(name, 0)) for name in ("left", "top")]
        box += [icon.get(name, icons.get(name, 16)) for name in ("width", "height")]
        yield Drawing(style, key, emoji, _svg(" ".join(map(str, box)), icon["body"]))


# Persons are left out: the examples fine-tune on them, so the model mustn't know them.
_SPRITES = {"enemies": Group.ANIMAL, "alien": Group.PERSON, "items": Group.OBJECT}
_POSES = re.compile(
    r"\b(move|dead|fall|walk|stand|climb|jump|hit|half|idle|front|swim|down|left|right)\b"
)


def game_sprites(members: dict[str, bytes]) -> list[Drawing]:
    """Animals, aliens and items of a game, named by file names such as `slimeBlue_move`."""
    found = []
    for folder, group in _SPRITES.items():
        for path, source in members.items():
            stem = Path(path).stem
            if Path(path).parent.name != folder or re.search("dead|hud|flag", stem.lower()):
                continue
            emoji = Emoji(_sprite_name(stem), group=group)
            found.append(Drawing(GAME, f"{folder}/{stem}", emoji, source))
    return found


_TONE_SUFFIX = re.compile(r"-(medium-light|medium-dark|light|medium|dark)$")


def without_skin_tones(drawings: list[Drawing]) -> list[Drawing]:
    """Leaves out variants whose only mark is a suffix to another drawing's key."""
    keys = {(drawing.style, drawing.key) for drawing in drawings}

    def is_variant(drawing: Drawing) -> bool:
        stem = _TONE_SUFFIX.sub("", drawing.key)
        unnamed = drawing.style in (FLAT, GLOSSY) and drawing.emoji.group is Group.UNKNOWN
        return unnamed and stem != drawing.key and (drawing.style, stem) in keys

    return [drawing for drawing in drawings if not is_variant(drawing)]


def _members(package: Package, folder: Path, pattern: str) -> dict[str, bytes]:
    wanted = re.compile(pattern)
    return read_members(fetch(package, folder), lambda name: bool(wanted.fullmatch(name)))


def _svg(box: str, body: str) -> bytes:
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {space} viewBox="{box}" width="{SIZE}" height="{SIZE}">{body}</svg>'.encode()


def _sprite_name(stem: str) -> str:
    name = re.sub(r"([a-z])([A-Z])", r"\1 \2", stem).lower().replace("_", " ")
    name = _POSES.sub("", re.sub(r"\d+", "", name))
    name = re.sub(r"\s+", " ", name).strip()
    if match := re.match(r"^(worm|slime|fish|alien|key|gem|coin)\s+(\w+)$", name):
        name = f"{match[2]} {match[1]}"
    return name
