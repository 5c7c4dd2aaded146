"""Which drawings are learned from, and what they are called."""

import json
from pathlib import Path

import pytest

from tools.model import drawings, sources
from tools.model.drawings import Drawing, game_sprites, icon_set, soft_renders, without_skin_tones
from tools.model.names import Emoji, Group, read_names
from tools.model.packages import Package, PackageError, fetch, read_members

NAMES = read_names(
    json.dumps(
        [
            {"label": "dog face", "hexcode": "1F436", "group": 3, "tags": ["pet"]},
            {"label": "robot", "hexcode": "1F916", "group": 0},
            {"label": "keycap: 1", "hexcode": "0031-FE0F-20E3", "group": 8},
            {"label": "flag: Chile", "hexcode": "1F1E8-1F1F1", "group": 9},
            {"label": "pirate flag", "hexcode": "1F3F4", "group": 9},
            {"label": "three o’clock", "hexcode": "1F552", "group": 5},
        ]
    ).encode()
)


def icons(*keys: str) -> bytes:
    return json.dumps({"icons": {key: {"body": "<path/>"} for key in keys}, "width": 32}).encode()


def found(style: str, *keys: str) -> dict[str, str]:
    return {d.key: d.emoji.label for d in icon_set(style, icons(*keys), NAMES)}


def test_an_icon_is_known_by_the_name_of_its_emoji() -> None:
    assert found(drawings.NOTO, "dog", "robot") == {"dog": "dog face", "robot": "robot"}


def test_an_icon_that_is_no_emoji_is_called_by_its_key() -> None:
    assert found(drawings.FLAT, "garden-gnome") == {"garden-gnome": "garden gnome"}


def test_mozillas_own_keys_are_not_taken_for_names() -> None:
    assert found(drawings.FIREFOX, "garden-gnome", "robot") == {"robot": "robot"}


@pytest.mark.parametrize(
    "key",
    [
        *("hand-medium-skin-tone", "flag-for-chile", "keycap-1", "three-oclock"),
        *("couple-with-heart-man-man", "a", "yes-button"),
    ],
)
def test_variants_signs_and_flags_are_left_out(key: str) -> None:
    assert found(drawings.NOTO, key) == {}


def test_a_flag_that_shows_something_stays() -> None:
    assert found(drawings.NOTO, "pirate-flag") == {}  # its key ends like a country's
    renders = soft_renders({"package/assets/1f3f4.webp": b""}, NAMES)
    assert [d.emoji.label for d in renders] == ["pirate flag"]


def test_soft_renders_are_named_by_code_point_and_have_no_skin_tones() -> None:
    members = dict.fromkeys(["a/1f436.webp", "a/1f436-1f3fb.webp", "a/ffff.webp"], b"picture")
    assert [d.emoji.label for d in soft_renders(members, NAMES)] == ["dog face"]


def test_a_tone_is_a_variant_only_beside_the_plain_drawing() -> None:
    def of(key: str) -> Drawing:
        return Drawing(drawings.FLAT, key, Emoji(key), b"")

    left = without_skin_tones([of("elf"), of("elf-dark"), of("moon-dark")])
    assert [d.key for d in left] == ["elf", "moon-dark"]


def test_sprites_of_a_game_are_named_without_pose_and_number() -> None:
    folder = "arcade/resources/assets/images"
    members = dict.fromkeys(
        [f"{folder}/enemies/slimeBlue_move.png", f"{folder}/items/gemRed.png"], b""
    )
    assert [(d.emoji.label, d.emoji.group) for d in game_sprites(members)] == [
        ("blue slime", Group.ANIMAL),
        ("red gem", Group.OBJECT),
    ]


def test_the_subjects_that_examples_train_on_are_never_learned() -> None:
    persons = "arcade/resources/assets/images/animated_characters"
    members = dict.fromkeys(
        [f"{persons}/{who}/{who}_idle.png" for who in ("robot", "zombie", "female_adventurer")], b""
    )
    assert game_sprites(members) == []


def test_the_same_members_come_in_the_same_order(tmp_path: Path) -> None:
    import zipfile

    archive = tmp_path / "one.whl"
    with zipfile.ZipFile(archive, "w") as bundle:
        for name in ("b.png", "a.png", "c.txt"):
            bundle.writestr(name, name)
    assert list(read_members(archive, lambda name: name.endswith(".png"))) == ["a.png", "b.png"]


def test_an_archive_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    package = Package("npm", "@a/b", "1.0.0", "0" * 64, "MIT", "someone")
    (tmp_path / package.archive).write_bytes(b"something else")
    with pytest.raises(PackageError, match=r"a-b-1\.0\.0\.tgz: its SHA-256 is .* Delete the file"):
        fetch(package, tmp_path)


def test_every_source_is_permissive_and_credited_in_the_notice() -> None:
    notice = (Path(__file__).resolve().parents[3] / "NOTICE").read_text()
    for package in sources.PACKAGES:
        assert package.licence in ("MIT", "Apache-2.0", "CC0-1.0"), package.name
        assert package.name in notice, package.name
        assert package.credit.partition(", ")[0] in notice, package.name
