"""Numbers and settings in the words people use."""

from collections.abc import Mapping
from typing import Any

_STAGES = {
    "photos": "Photos",
    "classImages": "Class pictures",
    "train": "Training",
    "generate": "New pictures",
    "evaluate": "Evaluation",
}


def stage_title(name: str) -> str:
    """A stage's name for people."""
    return _STAGES.get(name, name)


def duration(seconds: float) -> str:
    """Two units at most: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def bytes_in_words(count: float) -> str:
    """Decimal units with three digits: `812 B`, `36.4 MB`, `4.27 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names with values in words; what is empty is left out."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flattened(value, f"{name}.")
        elif isinstance(value, bool):
            rows.append((name, "yes" if value else "no"))
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(str(item) for item in value)))
        elif value is not None:
            rows.append((name, str(value)))
    return rows
