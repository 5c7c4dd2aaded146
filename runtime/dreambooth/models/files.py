"""A look at the files of a model that costs no reading of weights."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dreambooth.errors import UserError

# The library that reads them takes no longer header either.
_MAX_HEADER_BYTES = 100 * 2**20
# How files begin that Git LFS has not fetched.
_POINTER = b"version "


@dataclass(frozen=True)
class Header:
    """What a safetensors file says it holds.

    Attributes:
        tensors: Type, shape and place of each, by name.
        nbytes: Of the header; the tensors' bytes follow.
    """

    tensors: dict[str, Any]
    nbytes: int


def read_header(opened: BinaryIO) -> Header | None:
    """The header of a safetensors file, a length of eight bytes and that much JSON; None without.

    The format: https://github.com/huggingface/safetensors#format.
    """
    head = opened.read(8)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or not 0 < size <= _MAX_HEADER_BYTES:
        return None
    try:
        found = json.loads(opened.read(size))
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    found.pop("__metadata__", None)
    return Header(found, 8 + size)


def check_weights(file: Path, *, where: str, field: str) -> None:
    """Compares a safetensors file's size with what its header announces.

    Raises:
        UserError: If they differ, or there is no such header.
    """
    announced = None
    with readable(where, field), file.open("rb") as opened:
        pointer = opened.read(len(_POINTER)) == _POINTER
        opened.seek(0)
        header = read_header(opened)
    if header is not None:
        with contextlib.suppress(KeyError, TypeError, IndexError):
            ends = [tensor["data_offsets"][1] for tensor in header.tensors.values()]
            announced = header.nbytes + max(ends, default=0)
    if announced == file.stat().st_size:
        return
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
