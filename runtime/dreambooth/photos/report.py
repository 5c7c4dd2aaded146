"""What became of each photo, for the report and the user."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Photo:
    """One accepted photo.

    Attributes:
        file: Its name as prepared, e.g. `00.png`.
        name: Its name as it came.
        width, height: In pixels, as prepared: upright, at most 2048 on the long edge.
        original_width, original_height: As stored in the file that came.
        format: Of the file that came, e.g. `JPEG`.
        sha256: Of the file that came.
        sharpness: Variance of the Laplacian at 512 pixels; below 20 looks blurred.
        warnings: What might make it a poor choice.
    """

    file: str
    name: str
    width: int
    height: int
    original_width: int
    original_height: int
    format: str
    sha256: str
    sharpness: float
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """In the API's camelCase."""
        return {
            "file": self.file,
            "name": self.name,
            "width": self.width,
            "height": self.height,
            "originalWidth": self.original_width,
            "originalHeight": self.original_height,
            "format": self.format,
            "sha256": self.sha256,
            "sharpness": self.sharpness,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class PhotoReport:
    """All accepted photos.

    Attributes:
        photos: In the order of their prepared names.
        warnings: Each names the file it is about; includes those of the photos.
        left_out: Names of files that are no pictures.
    """

    photos: tuple[Photo, ...]
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """In the API's camelCase."""
        return {
            "count": len(self.photos),
            "photos": [photo.to_json() for photo in self.photos],
            "warnings": list(self.warnings),
            "leftOut": list(self.left_out),
        }
