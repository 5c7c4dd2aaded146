"""Photos in an object store: s3:// and gs://, a folder, a picture or an archive."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from dreambooth.errors import DreamBoothError, InfrastructureError, UserError
from dreambooth.photos.archive import is_archive, unpack
from dreambooth.photos.limits import check_count, check_sizes, is_hidden
from dreambooth.workspace.atomic import disk_errors

FIELD = "spec.subject.photos.uri"
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
# What the clients call it when there are no credentials, or they are wrong.
_CREDENTIAL_ERRORS = (
    "NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError",
)  # fmt: skip


@dataclass(frozen=True)
class ObjectSource:
    """A bucket, a folder in it, a picture or an archive; credentials from the environment."""

    uri: str

    def fetch(self, destination: Path) -> None:
        """Downloads what is directly in the folder; see `PhotoSource`."""
        with self._clear_errors():
            storage, root = self._open()
            # A picture can have the name of a folder; the folder is what people mean.
            listed = storage.ls(root.rstrip("/"), detail=True)
        objects = {
            PurePosixPath(entry["name"]).name: entry
            for entry in listed
            if entry["type"] == "file" and not entry["name"].endswith("/")
        }
        objects = {name: entry for name, entry in objects.items() if not is_hidden(name)}
        check_count(list(objects), where=self.uri, field=FIELD)
        sizes = {name: int(entry.get("size") or 0) for name, entry in sorted(objects.items())}
        check_sizes(sizes, where=self.uri, field=FIELD)
        for name, entry in sorted(objects.items()):
            self._get(storage, entry["name"], destination / name)
        self._unpack_single(destination)

    def _open(self) -> tuple[Any, str]:
        import fsspec

        # Fresh: a cached client keeps the credentials and listings it was made with.
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        storage, root = fsspec.core.url_to_fs(self.uri, **options)
        return storage, str(root)

    def _get(self, storage: Any, source: str, target: Path) -> None:
        with disk_errors(target):
            target.touch()
        with self._clear_errors():
            storage.get_file(source, str(target))

    def _unpack_single(self, destination: Path) -> None:
        files = list(destination.iterdir())
        if len(files) == 1 and is_archive(files[0]):
            hidden = destination / ".download"
            name = files[0].name
            files[0].rename(hidden)
            unpack(hidden, destination, name=name, field=FIELD)
            hidden.unlink()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except DreamBoothError:
            raise
        except Exception as error:
            # The clients' own exceptions have no common base, and are not imported for a name.
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> DreamBoothError:
        parts = urlsplit(self.uri)
        keys = _KEYS[parts.scheme]
        if isinstance(error, FileNotFoundError):
            return UserError(
                f"there is nothing at {self.uri}",
                field=FIELD,
                remedy="Correct the bucket and the folder.",
                reason="PhotosNotFound",
            )
        if type(error).__name__ in _CREDENTIAL_ERRORS:
            return UserError(
                f"there are no credentials for {self.uri}",
                field=FIELD,
                remedy=f"Set {keys} in the environment, on a cluster through photos.secretRef.",
                reason="PermissionDenied",
            )
        if _is_refusal(error):
            return UserError(
                f"the credentials do not allow reading {self.uri}",
                field=FIELD,
                remedy=f"Give the owner of {keys} permission to list and read it.",
                reason="PermissionDenied",
            )
        if isinstance(error, OSError) and error.errno and os.strerror(error.errno) in str(error):
            with disk_errors(Path(str(error.filename or "the workspace"))):
                raise error
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return InfrastructureError(
            f"{self.uri} could not be read ({text})",
            field=FIELD,
            remedy="Check the network and run again.",
            reason="DownloadFailed",
        )


def _is_refusal(error: Exception) -> bool:
    # gcsfs tells a 403 by the beginning of its text alone.
    text = str(error).startswith("Forbidden: ")
    return isinstance(error, PermissionError) or text or _status(error) in (401, 403)


def _status(error: Exception) -> int | None:
    code = getattr(error, "code", None) or getattr(error, "status", None)
    return code if isinstance(code, int) else None
