"""Figures as `kubectl get` shows them."""

from collections.abc import Mapping
from typing import Any


def display(status: Mapping[str, Any], *, running: bool) -> dict[str, str]:
    """The texts of status.display, from the numbers in the rest of status."""
    progress, quality = status.get("progress", {}), status.get("quality", {})
    shown: dict[str, str] = {}
    if "percent" in progress:
        shown["progress"] = f"{progress['percent']}%"
    if running and "etaSeconds" in progress:
        shown["eta"] = duration(progress["etaSeconds"])
    if "subjectFidelity" in quality:
        encoder = f" ({quality['encoder']})" if quality.get("encoder") else ""
        shown["fidelity"] = f"{quality['subjectFidelity']:.2f}{encoder}"[:64]
    if status.get("gpuSeconds"):
        shown["gpuTime"] = duration(status["gpuSeconds"])
    return shown


def duration(seconds: float) -> str:
    """A time in its two largest units: 45s, 7m, 1h12m, 3d4h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    days, hours = divmod(hours, 24)
    if days > 99_999:
        return "ages"
    return f"{days}d{hours}h" if hours else f"{days}d"
