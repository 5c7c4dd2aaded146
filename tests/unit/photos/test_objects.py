"""Photos in object stores: S3 as moto serves it, Google's as far as its API is needed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from dreambooth.api.job import Photos
from dreambooth.errors import DreamBoothError, InfrastructureError, UserError
from dreambooth.photos import fetch, limits
from tests.serving import QuietHandler, serving
from tests.unit.photos.pictures import a_photo, picture_bytes
from tests.unit.photos.test_archive import PHOTOS, zipped

OBJECTS = {
    **{f"pets/rex/{n}.png": picture_bytes(a_photo(n)) for n in range(3)},
    "pets/rex/.hidden.png": b"x",
    "pets/rex/older/0.png": b"x",
    "pets/all.zip": zipped(PHOTOS),
    "pets/empty/": b"",
}


def get(folder: Path, uri: str) -> list[str]:
    files = fetch(
        Photos(uri=uri),
        workspace=folder,
        manifest_dir=folder,
        destination=folder / "got",
        mounts=None,
    )
    return [file.name for file in files]


def refusal(folder: Path, uri: str, kind: type[DreamBoothError] = UserError) -> DreamBoothError:
    with pytest.raises(kind) as caught:
        get(folder, uri)
    assert caught.value.field == "spec.subject.photos.uri"
    assert caught.value.remedy
    assert list(folder.iterdir()) == []
    return caught.value


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client that fills buckets; the environment is as a user of that server has it."""
    import botocore.session

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    client = botocore.session.get_session().create_client("s3")
    client.create_bucket(Bucket="photos")
    for key, body in OBJECTS.items():
        client.put_object(Bucket="photos", Key=key, Body=body)
    yield client
    for entry in client.list_objects_v2(Bucket="photos").get("Contents", []):
        client.delete_object(Bucket="photos", Key=entry["Key"])
    client.delete_bucket(Bucket="photos")
    client.close()


class Bucket:
    """What gcsfs asks of Google's JSON API: listing, an object's facts, its content."""

    def __init__(self) -> None:
        self.objects = dict(OBJECTS)
        self.status = 200

    def facts(self, name: str) -> dict[str, Any]:
        return {"name": name, "bucket": "photos", "size": str(len(self.objects[name]))}

    def answer(self, handler: QuietHandler) -> None:
        parts = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        match = re.fullmatch(r"(?:/download)?/storage/v1/b/photos(?:/o(?:/(.+))?)?", parts.path)
        if self.status != 200 or match is None:
            handler.reply(self.status if self.status != 200 else 404, b"{}")
        elif match[1] is None:
            handler.reply(200, json.dumps(self._listing(query)).encode())
        elif (name := unquote(match[1])) not in self.objects:
            handler.reply(404, b'{"error": {"code": 404}}')
        elif query.get("alt") == "media":
            handler.reply(200, self.objects[name])
        else:
            handler.reply(200, json.dumps(self.facts(name)).encode())

    def _listing(self, query: dict[str, str]) -> dict[str, Any]:
        prefix = query.get("prefix", "")
        below = [name for name in self.objects if name.startswith(prefix)]
        if "delimiter" not in query:
            return {"items": [self.facts(name) for name in below]}
        folders = {
            prefix + name[len(prefix) :].partition("/")[0] + "/"
            for name in below
            if "/" in name[len(prefix) :]
        }
        direct = [name for name in below if "/" not in name[len(prefix) :]]
        return {"items": [self.facts(name) for name in direct], "prefixes": sorted(folders)}


@pytest.fixture
def gs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    bucket = Bucket()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            bucket.answer(self)

    with serving(Handler) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        # Nobody asks the machine that Google's own machines have for credentials.
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        yield bucket


@pytest.fixture(params=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> str:
    """The scheme of a store with `OBJECTS` in the bucket `photos`."""
    request.getfixturevalue(request.param)
    return str(request.param)


def test_the_objects_directly_in_a_folder_are_downloaded(tmp_path: Path, store: str) -> None:
    for uri in (f"{store}://photos/pets/rex", f"{store}://photos/pets/rex/"):
        assert get(tmp_path, uri) == ["0.png", "1.png", "2.png"]
    for n in range(3):
        assert (tmp_path / "got" / f"{n}.png").read_bytes() == OBJECTS[f"pets/rex/{n}.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["got"]


def test_a_single_photo_or_archive_can_be_named(tmp_path: Path, store: str) -> None:
    assert get(tmp_path, f"{store}://photos/pets/rex/1.png") == ["1.png"]
    assert get(tmp_path, f"{store}://photos/pets/all.zip") == ["a.png", "b.JPG", "c.webp"]
    assert [path.name for path in tmp_path.iterdir()] == ["got"]


@pytest.mark.parametrize("path", ["photos/rexx", "photos/pets/rex/9.png", "fotos/pets/rex"])
def test_what_is_not_there_is_named(tmp_path: Path, store: str, path: str) -> None:
    error = refusal(tmp_path, f"{store}://{path}")
    assert f"there is nothing at {store}://{path}" in error.message
    assert "bucket" in str(error.remedy)


@pytest.mark.parametrize("path", ["photos/pets/empty", "photos"])
def test_a_folder_without_objects_is_named(tmp_path: Path, store: str, path: str) -> None:
    assert path in refusal(tmp_path, f"{store}://{path}").message


def test_objects_larger_than_any_photo_are_not_downloaded(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 100)
    error = refusal(tmp_path, f"{store}://photos/pets/rex")
    assert "0.png has" in error.message


def test_a_disk_that_refuses_is_the_workspaces_fault(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins
    import errno
    import os

    real = builtins.open

    def full(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if "w" in mode and str(file).endswith(".png"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        return real(file, mode, *rest, **options)

    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(InfrastructureError, match="no space left") as caught:
        get(tmp_path, f"{store}://photos/pets/rex")
    assert "Free some space" in str(caught.value.remedy)
    assert list(tmp_path.iterdir()) == []


def test_without_credentials_it_says_where_they_belong(
    tmp_path: Path, s3: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = refusal(tmp_path, "s3://photos/pets/rex")
    assert "no credentials for s3://photos/pets/rex" in error.message
    assert "AWS_ACCESS_KEY_ID" in str(error.remedy)
    assert "photos.secretRef" in str(error.remedy)


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_not_enough_are_told(tmp_path: Path, gs: Bucket, status: int) -> None:
    gs.status = status
    error = refusal(tmp_path, "gs://photos/pets/rex")
    assert "credentials" in error.message
    assert "GOOGLE_APPLICATION_CREDENTIALS" in str(error.remedy)


def test_a_store_that_does_not_answer_is_not_the_authors_fault(
    tmp_path: Path, s3: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    error = refusal(tmp_path, "s3://photos/pets/rex", InfrastructureError)
    assert "s3://photos/pets/rex could not be read" in error.message
    assert "network" in str(error.remedy)
