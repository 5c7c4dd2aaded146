"""The packages that the pictures and their names come from: permissive licences only."""

from tools.model.packages import Package

_MICROSOFT = "Fluent Emoji, Copyright (c) Microsoft Corporation"

EMOJIBASE = Package(
    registry="npm",
    name="emojibase-data",
    version="17.0.0",
    sha256="d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    licence="MIT",
    credit="emojibase, Copyright (c) 2017-2019 Miles Johnson",
)
SOFT = Package(
    registry="npm",
    name="@lobehub/fluent-emoji-3d",
    version="1.1.0",
    sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    licence="MIT",
    credit=_MICROSOFT,
)
NOTO = Package(
    registry="npm",
    name="@iconify-json/noto",
    version="1.2.9",
    sha256="3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    licence="Apache-2.0",
    credit="Noto Emoji, Copyright Google Inc.",
)
FLAT = Package(
    registry="npm",
    name="@iconify-json/fluent-emoji-flat",
    version="1.2.6",
    sha256="7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    licence="MIT",
    credit=_MICROSOFT,
)
GLOSSY = Package(
    registry="npm",
    name="@iconify-json/fluent-emoji",
    version="1.2.7",
    sha256="8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
    licence="MIT",
    credit=_MICROSOFT,
)
FIREFOX = Package(
    registry="npm",
    name="@iconify-json/fxemoji",
    version="1.2.2",
    sha256="f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
    licence="Apache-2.0",
    credit="Firefox OS Emoji (FxEmojis), Copyright Mozilla Foundation",
)
ARCADE = Package(
    registry="pypi",
    name="arcade",
    version="3.3.3",
    sha256="25f4e0e5b8bcbe7a7d087c0a23b19e9f423b0c70ec00945c8712c9a3e541ebd2",
    licence="CC0-1.0",
    credit="Sprites by Kenney (www.kenney.nl)",
)

PACKAGES = (EMOJIBASE, SOFT, NOTO, FLAT, GLOSSY, FIREFOX, ARCADE)
