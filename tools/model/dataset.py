"""All pictures and their records in one file."""

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tools.model.drawings import Drawing
from tools.model.errors import RecipeError
from tools.model.picture import decode, encode
from tools.model.records import Record, describe
from tools.model.workers import spread

FILE = "pictures.zip"
_RECORDS = "records.json"
# The same content is the same file, byte for byte.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Dataset:
    """Pictures as WebP, each with its record."""

    records: Sequence[Record]
    pictures: Sequence[bytes]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The data set that `write` put into `folder`.

        Raises:
            RecipeError: If there is none.
        """
        path = folder / FILE
        try:
            with zipfile.ZipFile(path) as bundle:
                names = sorted(name for name in bundle.namelist() if name.endswith(".webp"))
                records = [Record(**fields) for fields in json.loads(bundle.read(_RECORDS))]
                pictures = [bundle.read(name) for name in names]
        except FileNotFoundError as error:
            raise RecipeError(
                f"{path} doesn't exist. Make it with: python -m tools.model pictures {folder}"
            ) from error
        return cls(records, pictures)

    def write(self, folder: Path) -> None:
        """Puts everything into one file of `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{FILE}.part"
        with zipfile.ZipFile(unfinished, "w") as bundle:
            bundle.writestr(_entry(_RECORDS, zipfile.ZIP_DEFLATED), self._described())
            for number, picture in enumerate(self.pictures):
                bundle.writestr(_entry(f"{number:05}.webp", zipfile.ZIP_STORED), picture)
        unfinished.replace(folder / FILE)

    def pixels(self) -> NDArray[np.uint8]:
        """All pictures, [N, 4, SIZE, SIZE]."""
        return np.stack(spread(decode, self.pictures, chunk=64))

    def counts(self) -> Mapping[str, int]:
        """How many pictures each style has."""
        return Counter(record.style for record in self.records)

    def digest(self) -> str:
        """Of all that training depends on."""
        whole = hashlib.sha256(self._described().encode())
        for picture in self.pictures:
            whole.update(hashlib.sha256(picture).digest())
        return whole.hexdigest()

    def _described(self) -> str:
        return json.dumps([asdict(record) for record in self.records], indent=0)


def build(drawings: Iterable[Drawing]) -> Dataset:
    """Draws and describes everything that is to be learned."""
    entries = [entry for entry in spread(_entry_of, drawings, chunk=32) if entry]
    return Dataset([record for record, _ in entries], [picture for _, picture in entries])


def _entry_of(drawing: Drawing) -> tuple[Record, bytes] | None:
    # The renderer is needed only here: machines that train do without it.
    from tools.model.rendering import is_empty, render

    image = render(drawing.source)
    if is_empty(image):
        return None
    record = describe(drawing, image)
    return None if record is None else (record, encode(image))


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = compression
    return entry
