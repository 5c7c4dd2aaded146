"""What Triton has compiled; imports nothing that is missing on a bare machine with a GPU."""

from pathlib import Path


def compiled(cache: str) -> set[str]:
    """The kernels in a folder of Triton's."""
    return {f"{file.parent.name}/{file.name}" for file in Path(cache).rglob("*.cubin")}
