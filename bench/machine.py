"""What a figure was measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "diffusers", "transformers", "peft", "ray")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, GPU, and versions of what computes."""
    # Seconds long, and of no use to those who only read what was described.
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": versions,
    }


def busy_with_others() -> float | None:
    """Processes that want a core now, before anything is measured; None if cores are to spare."""
    load = os.getloadavg()[0]
    return round(load, 1) if load > 0.5 * len(os.sched_getaffinity(0)) else None


def in_words(machine: dict[str, Any]) -> str:
    """One line for a table's caption."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    where = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    return f"{where}; Python {machine['python']}, {versions}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
