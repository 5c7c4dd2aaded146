"""Names of emoji: which drawing is what, by emojibase's English data."""

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Group(enum.IntEnum):
    """The groups of Unicode's emoji list; UNKNOWN for what isn't on it."""

    UNKNOWN = -1
    FACE = 0
    PERSON = 1
    COMPONENT = 2
    ANIMAL = 3
    FOOD = 4
    PLACE = 5
    ACTIVITY = 6
    OBJECT = 7
    SYMBOL = 8
    FLAG = 9


@dataclass(frozen=True)
class Emoji:
    """A name, words that go with it, and the group it is in."""

    label: str
    tags: tuple[str, ...] = ()
    group: Group = Group.UNKNOWN


@dataclass(frozen=True)
class EmojiNames:
    """Finds an emoji by the name or the code points that an icon set gives it."""

    by_label: Mapping[str, Emoji] = field(default_factory=dict)
    by_code: Mapping[str, Emoji] = field(default_factory=dict)

    def of_code(self, code: str) -> Emoji | None:
        """By code points in hexadecimal, with or without the variation selector."""
        return self.by_code.get(code) or self.by_code.get(code.replace("-fe0f", ""))

    def of_key(self, key: str) -> Emoji | None:
        """By an icon set's own key, which may differ by `face`, `person` or `and`."""
        plain = _plain(key)
        without = (plain.replace("face", ""), plain.replace("and", ""))
        for candidate in (plain, without[0], plain + "face", "person" + plain, without[1]):
            if found := self.by_label.get(candidate):
                return found
        return None


def read_names(text: bytes) -> EmojiNames:
    """Reads emojibase's data.json."""
    entries: list[dict[str, Any]] = json.loads(text)
    by_label: dict[str, Emoji] = {}
    by_code: dict[str, Emoji] = {}
    for entry in entries:
        emoji = Emoji(
            label=entry["label"],
            tags=tuple(entry.get("tags", ())),
            group=Group(entry.get("group", Group.UNKNOWN)),
        )
        code = entry["hexcode"].lower()
        by_label.setdefault(_plain(emoji.label), emoji)
        by_code[code] = by_code[code.replace("-fe0f", "")] = emoji
    return EmojiNames(by_label, by_code)


_FLAGS_WITH_A_MEANING = re.compile("pirate|chequered|triangular|crossed|white flag|black flag")
_SIGNS = re.compile(
    r"arrow|sign\b|mark|square|circle|diamond|indicator|signal|mode|loop|vibration"
    r"|mobile phone off|prohibit|no |non-|bring|japanese|input|cross|asterisk|male|female|symbol"
    r"|infinity|multiply|plus|minus|divide|om|star of david|orthodox|latin|wheel of dharma|yin"
    r"|menorah|bars|trident|recycling|copyright|registered|trade"
)


def is_a_thing(label: str, group: Group) -> bool:
    """Whether there is something to draw: no signs, keycaps, clock times or countries' flags."""
    label = label.lower()
    if group is Group.FLAG and not _FLAGS_WITH_A_MEANING.search(label):
        return False
    if label.startswith(("keycap", "flag:", "flag ", "flag-")):
        return False
    if "button" in label and "radio" not in label:
        return False
    if re.search(r"o.clock|thirty$", label):
        return False
    if re.match(r"^(family|kiss|couple with heart)\b.*[:]", label):
        return False
    return not (group is Group.SYMBOL and _SIGNS.search(label))


def _plain(name: str) -> str:
    name = name.lower().replace("&", "and")
    return re.sub(r"[^a-z0-9]", "", name.translate(str.maketrans("ñéåãô", "neaao")))
