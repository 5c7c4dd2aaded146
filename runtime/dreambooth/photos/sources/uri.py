"""Photos at a URI: which source reads which scheme."""

from urllib.parse import urlsplit

from dreambooth.errors import UserError
from dreambooth.photos.sources.base import PhotoSource
from dreambooth.photos.sources.http import HttpSource
from dreambooth.photos.sources.local_uri import LocalUriSource
from dreambooth.photos.sources.objects import ObjectSource

FIELD = "spec.subject.photos.uri"


def uri_source(uri: str) -> PhotoSource:
    """The source that reads `uri`.

    Raises:
        UserError: If none does, or if it has a password in it.
    """
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError as error:
        raise UserError(
            f"{uri} is no URI ({error})",
            field=FIELD,
            remedy="Give one such as https://example.org/photos.zip or s3://bucket/folder.",
            reason="InvalidUri",
        ) from error
    if parts.username or parts.password:
        raise UserError(
            f"the URI has a user name or password in it, for {host}",
            field=FIELD,
            remedy="Put credentials into the environment, on a cluster into the Secret that "
            "photos.secretRef names.",
            reason="InvalidUri",
        )
    if parts.scheme in ("http", "https") and host:
        return HttpSource(uri)
    if parts.scheme == "file":
        return LocalUriSource(uri)
    if parts.scheme in ("s3", "gs") and host:
        return ObjectSource(uri)
    raise UserError(
        f"photos cannot be read from {uri}",
        field=FIELD,
        remedy="Give an s3://, gs://, https://, http:// or file:// URI.",
        reason="InvalidUri",
    )
