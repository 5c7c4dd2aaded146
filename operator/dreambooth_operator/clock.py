"""Times as the API writes them: RFC 3339, UTC, whole seconds."""

import re
from datetime import UTC, datetime

_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})"
)


def to_text(moment: datetime) -> str:
    """A moment as text, such as 2026-11-25T12:00:00Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_text(text: object) -> datetime | None:
    """The moment that a text means, to the second; None if it means none."""
    match = _RFC3339.fullmatch(text) if isinstance(text, str) and len(text) <= 64 else None
    if match is None:
        return None
    day, time, _, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def seconds_between(earlier: datetime | None, later: datetime | None) -> float:
    """Seconds from one moment to the other; 0 if one is unknown or they are in the other order."""
    if earlier is None or later is None:
        return 0.0
    return max(0.0, (later - earlier).total_seconds())
