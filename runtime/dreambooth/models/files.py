"""A look at the files of a model that costs no reading of weights."""

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

from dreambooth.errors import UserError

# The library that reads them takes no longer header either.
_MAX_HEADER_BYTES = 100 * 2**20


def check_weights(file: Path, *, where: str, field: str) -> None:
    """Compares a safetensors file's size with what its header announces.

    Raises:
        UserError: If they differ, or there is no such header.
    """
    with readable(where, field), file.open("rb") as opened:
        head = opened.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        announced = None
        if 0 < size <= _MAX_HEADER_BYTES:
            try:
                tensors = json.loads(opened.read(size))
                ends = [t["data_offsets"][1] for n, t in tensors.items() if n != "__metadata__"]
                announced = 8 + size + max(ends, default=0)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError):
                announced = None
    if announced == file.stat().st_size:
        return
    pointer = head == b"version "
    raise UserError(
        f"{where} is only a pointer of Git LFS"
        if pointer
        else f"{where} is damaged or not complete",
        field=field,
        remedy="Run git lfs pull where it comes from, and copy it again."
        if pointer
        else "Copy the model again.",
        reason="ModelIncomplete",
    )


def check_json(file: Path, *, where: str, field: str) -> None:
    """Reads a JSON file.

    Raises:
        UserError: If it is none.
    """
    try:
        with readable(where, field):
            json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{where} is no valid JSON ({error})",
            field=field,
            remedy="Copy the model again.",
            reason="ModelIncomplete",
        ) from error


@contextlib.contextmanager
def readable(where: str, field: str) -> Iterator[None]:
    """Names the file or folder that the operating system does not give.

    Raises:
        UserError: With the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{where} cannot be read: {(error.strerror or str(error)).lower()}",
            field=field,
            remedy="Correct the path or its permissions, or copy the model again.",
            reason="ModelNotReadable",
        ) from error
