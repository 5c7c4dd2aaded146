"""Photos at an address: what is there counts, and no answer of a server does harm."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dreambooth.api.job import Photos
from dreambooth.errors import DreamBoothError, InfrastructureError, UserError
from dreambooth.photos import fetch
from dreambooth.photos.sources import http
from dreambooth.workspace.atomic import sweep_temporaries
from tests.serving import QuietHandler, serving
from tests.unit.photos.pictures import a_photo, picture_bytes
from tests.unit.photos.test_archive import PHOTOS, tarred, zipped

PNG = picture_bytes(a_photo())
Answer = Callable[[QuietHandler], None]


class Site:
    """A server that answers as a test says, one answer a request; the last one again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: list[Answer] = []
        self.requests: list[str] = []
        self.address = ""

    def handler(self) -> type[QuietHandler]:
        site = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                answer = site.answers[min(len(site.requests), len(site.answers)) - 1]
                answer(self)

        return Handler

    def fetch(self, path: str = "/rex.png") -> list[str]:
        files = fetch(
            Photos(uri=path if "://" in path else self.address + path),
            workspace=self.folder,
            manifest_dir=self.folder,
            destination=self.folder / "got",
            mounts=None,
        )
        return [file.name for file in files]

    def refuses(self, kind: type[DreamBoothError], path: str = "/rex.png") -> DreamBoothError:
        with pytest.raises(kind) as caught:
            self.fetch(path)
        assert list(self.folder.iterdir()) == []
        assert caught.value.field == "spec.subject.photos.uri"
        assert caught.value.remedy
        return caught.value


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(http, "RETRY_WAITS", (0.0, 0.0))
    site = Site(tmp_path)
    with serving(site.handler()) as site.address:
        yield site


def gives(body: bytes, **headers: str) -> Answer:
    return lambda handler: handler.reply(
        200, body, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def says(status: int, **headers: str) -> Answer:
    return lambda handler: handler.reply(status, b"no", headers)


def hangs_up(handler: QuietHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def breaks_off(handler: QuietHandler) -> None:
    handler.break_off(PNG[:500], len(PNG))


def test_a_photo_is_downloaded_under_its_name(site: Site) -> None:
    site.answers = [gives(PNG, Content_Type="image/png")]
    assert site.fetch("/pets/rex%20one.png?size=large") == ["rex one.png"]
    assert (site.folder / "got" / "rex one.png").read_bytes() == PNG
    assert [path.name for path in site.folder.iterdir()] == ["got"]


@pytest.mark.parametrize("make", [zipped, tarred])
def test_an_archive_is_unpacked_whatever_it_is_called(site: Site, make: object) -> None:
    assert callable(make)
    site.answers = [gives(make(PHOTOS), Content_Type="application/octet-stream")]
    assert site.fetch("/download?id=7") == ["a.png", "b.JPG", "c.webp"]


@pytest.mark.parametrize(
    ("path", "disposition", "name"),
    [
        ("/x", 'attachment; filename="rex.jpg"', "rex.jpg"),
        ("/x", 'attachment; filename="../../etc/passwd"', "passwd"),
        ("/x", 'attachment; filename="..\\\\..\\\\rex.jpg"', "rex.jpg"),
        ("/x", "attachment; filename*=UTF-8''r%C3%A9x.jpg", "réx.jpg"),
        ("/x", 'attachment; filename=".hidden.png"', "hidden.png"),
        ("/%2e%2e%2f%2e%2e%2frex.png", "", "rex.png"),
        ("/a%00b:c.png", "", "a_b_c.png"),
        ("/" + "x" * 300 + ".png", "", "x" * 124 + ".png"),
        ("/", "", "photo"),
    ],
)
def test_no_name_leads_out_of_the_folder(
    site: Site, path: str, disposition: str, name: str
) -> None:
    headers = {"Content_Disposition": disposition} if disposition else {}
    site.answers = [gives(PNG, **headers)]
    assert site.fetch(path) == [name]
    assert [entry.name for entry in site.folder.iterdir()] == ["got"]


def test_a_redirect_is_followed(site: Site) -> None:
    site.answers = [says(302, Location="/real/rex.png"), gives(PNG)]
    assert site.fetch("/short") == ["rex.png"]
    assert site.requests == ["/short", "/real/rex.png"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.org/rex.png"])
def test_a_redirect_to_anything_but_a_web_address_is_not_followed(site: Site, target: str) -> None:
    site.answers = [says(302, Location=target)]
    assert "status 302" in site.refuses(UserError).message


@pytest.mark.parametrize(
    ("answer", "words", "remedy"),
    [
        (says(404), "there is nothing at", "try it in a browser"),
        (says(410), "there is nothing at", "try it in a browser"),
        (says(401), "may not be read without permission (status 401)", "Make it public"),
        (says(403), "may not be read without permission (status 403)", "Make it public"),
        (gives(b"<html>", Content_Type="text/html; charset=utf-8"), "is a web page", "direct link"),
        (gives(zipped([("notes.txt", b"x")])), "no photos in rex.png", "3 to 10 photos"),
    ],
)
def test_what_the_author_can_mend_is_not_tried_again(
    site: Site, answer: Answer, words: str, remedy: str
) -> None:
    site.answers = [answer]
    error = site.refuses(UserError)
    assert words in error.message
    assert remedy in str(error.remedy)
    assert len(site.requests) == 1


@pytest.mark.parametrize("answer", [says(503), says(429), hangs_up, breaks_off])
def test_what_a_moment_can_mend_is_tried_again(site: Site, answer: Answer) -> None:
    site.answers = [answer, answer, gives(PNG)]
    assert site.fetch() == ["rex.png"]
    assert (site.folder / "got" / "rex.png").read_bytes() == PNG


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says(503), "answered 503"),
        (breaks_off, "broke off in the middle"),
        (hangs_up, "could not be read"),
    ],
)
def test_after_three_tries_it_is_the_networks_fault(site: Site, answer: Answer, words: str) -> None:
    site.answers = [answer]
    assert words in site.refuses(InfrastructureError).message
    assert len(site.requests) == 3


def test_a_server_that_never_answers_is_not_waited_for_without_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.1)
    ended = threading.Event()

    def waits(handler: QuietHandler) -> None:
        ended.wait(30)
        handler.close_connection = True

    site.answers = [waits]
    try:
        assert "has not answered" in site.refuses(InfrastructureError).message
    finally:
        ended.set()


def test_a_port_where_nobody_listens_is_named(site: Site) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/rex.png"
        error = site.refuses(InfrastructureError, address)
    assert f"{address} refuses the connection" in error.message


def test_a_machine_that_does_not_exist_is_the_authors_mistake(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = site.refuses(UserError, "http://exmaple.org/rex.png")
    assert "no machine named exmaple.org" in error.message


@pytest.mark.parametrize("announced", [True, False])
def test_a_download_without_end_is_cut(
    site: Site, monkeypatch: pytest.MonkeyPatch, announced: bool
) -> None:
    monkeypatch.setattr(http, "MAX_TOTAL_BYTES", 3 * 2**20)
    sent = []

    def pours(handler: QuietHandler) -> None:
        handler.send_response(200)
        if announced:
            handler.send_header("Content-Length", str(2**40))
        handler.end_headers()
        handler.close_connection = True
        try:
            for _ in range(1000):
                sent.append(handler.wfile.write(bytes(2**20)))
        except OSError:
            pass

    site.answers = [pours]
    assert "has more than" in site.refuses(UserError).message
    assert len(sent) < 100
    assert len(site.requests) == 1


def test_a_photo_larger_than_any_photo_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreambooth.photos.limits.MAX_FILE_BYTES", 2**20)
    site.answers = [gives(PNG + bytes(2**21))]
    assert "rex.png has 2 MiB" in site.refuses(UserError).message


# In a process of its own, so that it can be killed in the middle of a download.
FETCH = """
import sys
from pathlib import Path
from dreambooth.api.job import Photos
from dreambooth.photos import fetch
folder = Path(sys.argv[2])
fetch(Photos(uri=sys.argv[1]), workspace=folder, manifest_dir=folder, destination=folder / "got",
      mounts=None)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_download_that_dies_in_the_middle_leaves_nothing_that_looks_whole(
    site: Site, how: signal.Signals
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def half(handler: QuietHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(PNG)))
        handler.end_headers()
        handler.wfile.write(PNG[:1000])
        handler.wfile.flush()
        begun.set()
        ended.wait(30)
        handler.close_connection = True

    site.answers = [half]
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, f"{site.address}/rex.png", str(site.folder)],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": "runtime"},
    )
    assert begun.wait(30)
    process.send_signal(how)
    process.wait(30)
    ended.set()
    assert not (site.folder / "got").exists()
    # The next run sweeps first.
    sweep_temporaries(site.folder)
    assert list(site.folder.iterdir()) == []
    site.answers = [gives(PNG)]
    assert site.fetch() == ["rex.png"]
