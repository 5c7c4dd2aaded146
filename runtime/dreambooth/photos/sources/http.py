"""A picture, or an archive of pictures, at an http(s) address."""

import errno
import http.client
import re
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from dreambooth import __version__
from dreambooth.errors import DreamBoothError, InfrastructureError, UserError
from dreambooth.photos.archive import is_archive, unpack
from dreambooth.photos.limits import MAX_TOTAL_BYTES, check_sizes
from dreambooth.workspace.atomic import disk_errors

FIELD = "spec.subject.photos.uri"
# Seconds before the second and the third try of what a moment's patience can mend.
RETRY_WAITS = (1.0, 4.0)
TIMEOUT = 60.0
_CHUNK = 2**20
_TEMPORARY_STATUS = (408, 425, 429, 500, 502, 503, 504)


class _OnlyHttp(urllib.request.HTTPRedirectHandler):
    """Redirects to http(s) only; the library's own would follow one to ftp."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        """The request for `newurl`; None refuses it, and the redirect becomes the error."""
        if urlsplit(newurl).scheme not in ("http", "https"):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True)
class HttpSource:
    """An http(s) address; what is there is told by its content, not by its name."""

    uri: str

    def fetch(self, destination: Path) -> None:
        """Downloads, with two more tries, and unpacks; see `PhotoSource`."""
        # A hidden name: nobody takes it for a photo.
        download = destination / ".download"
        name = self._download(download)
        if is_archive(download):
            unpack(download, destination, name=name, field=FIELD)
            download.unlink()
        else:
            check_sizes({name: download.stat().st_size}, where=self.uri, field=FIELD)
            download.rename(destination / name)

    def _download(self, target: Path) -> str:
        """Writes the content to `target`.

        Returns:
            The file's name as the server or the address gives it.
        """
        for wait in (*RETRY_WAITS, None):
            try:
                return self._try(target)
            except InfrastructureError as error:
                if wait is None or error.reason == "WorkspaceNotWritable":
                    raise
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _try(self, target: Path) -> str:
        opener = urllib.request.build_opener(_OnlyHttp)
        request = urllib.request.Request(
            self.uri,
            headers={"User-Agent": f"dreambooth/{__version__}", "Accept-Encoding": "identity"},
        )
        try:
            with opener.open(request, timeout=TIMEOUT) as response:
                headers = response.headers
                self._check_head(headers)
                with disk_errors(target):
                    file = target.open("wb")
                with file:
                    self._copy(response, file, headers.get("Content-Length"))
                return _file_name(headers, response.geturl())
        except DreamBoothError:
            raise
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refused(error) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(error) from error

    def _check_head(self, headers: Message) -> None:
        kind = headers.get_content_type()
        if kind in ("text/html", "application/xhtml+xml"):
            raise UserError(
                f"{self.uri} is a web page, not a picture or an archive",
                field=FIELD,
                remedy="Give the address of the file itself; many sites call it a direct link.",
                reason="PhotosNotFound",
            )
        length = headers.get("Content-Length", "")
        if length.isdigit() and int(length) > MAX_TOTAL_BYTES:
            raise self._too_large()

    def _copy(self, response: IO[bytes], file: IO[bytes], announced: str | None) -> None:
        size = 0
        while chunk := response.read(_CHUNK):
            size += len(chunk)
            if size > MAX_TOTAL_BYTES:
                raise self._too_large()
            with disk_errors(Path(file.name)):
                file.write(chunk)
        if announced and announced.isdigit() and size < int(announced):
            raise http.client.IncompleteRead(b"", int(announced) - size)

    def _too_large(self) -> UserError:
        return UserError(
            f"{self.uri} has more than {MAX_TOTAL_BYTES >> 30} GiB",
            field=FIELD,
            remedy="Make an archive of nothing but the photos.",
            reason="ArchiveRefused",
        )

    def _refused(self, error: urllib.error.HTTPError) -> DreamBoothError:
        if error.code in _TEMPORARY_STATUS:
            return InfrastructureError(
                f"{self.uri} answered {error.code} {error.reason}",
                field=FIELD,
                remedy="Run again later.",
                reason="DownloadFailed",
            )
        if error.code in (401, 403):
            return UserError(
                f"{self.uri} may not be read without permission (status {error.code})",
                field=FIELD,
                remedy="Make it public, or use an address that carries its own signature.",
                reason="PermissionDenied",
            )
        return UserError(
            f"there is nothing at {self.uri} (status {error.code})",
            field=FIELD,
            remedy="Correct the address; try it in a browser.",
            reason="PhotosNotFound",
        )

    def _unreachable(self, error: Exception) -> DreamBoothError:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return UserError(
                f"there is no machine named {urlsplit(self.uri).hostname}",
                field=FIELD,
                remedy="Correct the address; try it in a browser.",
                reason="PhotosNotFound",
            )
        if isinstance(cause, (http.client.InvalidURL, ValueError)):
            return UserError(
                f"{self.uri} is no address ({cause})",
                field=FIELD,
                remedy="Give one such as https://example.org/photos.zip.",
                reason="InvalidUri",
            )
        if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
            what = "refuses the connection"
        elif isinstance(cause, TimeoutError):
            what = f"has not answered in {TIMEOUT:.0f} seconds"
        elif isinstance(cause, http.client.IncompleteRead):
            what = "broke off in the middle"
        else:
            what = f"could not be read ({cause})"
        return InfrastructureError(
            f"{self.uri} {what}",
            field=FIELD,
            remedy="Check the network and run again.",
            reason="DownloadFailed",
        )


def _file_name(headers: Message, uri: str) -> str:
    """A plain file name: the header's, else the address's."""
    name = headers.get_filename() or unquote(urlsplit(uri).path)
    name = re.split(r"[/\\]", name)[-1]
    name = re.sub(r"[^\w.()+ -]", "_", name).lstrip(".")
    return name[-128:] or "photo"
