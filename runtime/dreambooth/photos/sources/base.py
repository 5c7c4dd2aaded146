"""What every photo source does."""

from pathlib import Path
from typing import Protocol


class PhotoSource(Protocol):
    """A place that photos come from."""

    def fetch(self, destination: Path) -> None:
        """Writes the original files into the empty folder `destination`.

        Hidden files and sub-folders are not taken. What is left in `destination` after an error
        is thrown away by the caller.

        Raises:
            UserError: For what the manifest's author can mend; names the field.
            InfrastructureError: For what trying again can mend.
        """
