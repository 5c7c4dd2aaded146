"""Photos at a file:// URI: a folder, a picture or an archive of this machine."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from dreambooth.errors import UserError
from dreambooth.photos.archive import is_archive, unpack
from dreambooth.photos.sources.folder import check_inside, copy_file, copy_folder, there_is

FIELD = "spec.subject.photos.uri"


@dataclass(frozen=True)
class LocalUriSource:
    """A file:// URI. It may name any place that the user who runs the job can read."""

    uri: str

    def fetch(self, destination: Path) -> None:
        """Copies or unpacks; see `PhotoSource`."""
        parts = urlsplit(self.uri)
        if parts.netloc not in ("", "localhost"):
            raise UserError(
                f"{self.uri} names the machine {parts.netloc}",
                field=FIELD,
                remedy="Write file:/// with three slashes and the absolute path.",
                reason="InvalidUri",
            )
        path = Path(url2pathname(parts.path))
        if not there_is(path, where=self.uri, field=FIELD):
            raise UserError(
                f"there is no file or folder {path}",
                field=FIELD,
                remedy="Correct the path; on a cluster use photos.path, which is on the workspace.",
                reason="PhotosNotFound",
            )
        real = check_inside(path, Path("/"), where=self.uri, field=FIELD)
        if real.is_dir():
            copy_folder(real, destination, within=Path("/"), where=self.uri, field=FIELD)
        elif real.is_file() and is_archive(real):
            unpack(real, destination, name=path.name, field=FIELD)
        else:
            copy_file(real, destination / path.name, field=FIELD)
