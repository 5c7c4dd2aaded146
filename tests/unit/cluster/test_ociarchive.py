"""A one-program image is what the OCI's specification says it is."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from localcluster import ociarchive


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    program = tmp_path / "pause"
    program.write_bytes(b"program")
    file = tmp_path / "images" / "pause.tar"
    ociarchive.write(file, "localhost/pause:1", program)
    return file


def members(archive: Path) -> dict[str, bytes]:
    """Name and content of each file in the archive."""
    with tarfile.open(archive) as tar:
        files = [(entry.name, tar.extractfile(entry)) for entry in tar]
        return {name: file.read() for name, file in files if file}


def part(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """The content that a descriptor names, checked against it."""
    content = files["blobs/" + descriptor["digest"].replace(":", "/")]
    assert len(content) == descriptor["size"]
    assert "sha256:" + hashlib.sha256(content).hexdigest() == descriptor["digest"]
    return content


def test_its_parts_are_named_by_their_digests(archive: Path) -> None:
    files = members(archive)
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/pause:1"
    manifest = json.loads(part(files, entry))
    config = json.loads(part(files, manifest["config"]))
    (layer,) = manifest["layers"]
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    assert config["config"]["Entrypoint"] == ["/pause"]
    with tarfile.open(fileobj=io.BytesIO(part(files, layer))) as tar:
        program = tar.getmember("pause")
        assert program.mode == 0o755
        assert tar.getmember("tmp").mode == 0o1777


def test_the_same_program_makes_the_same_image(archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar"
    ociarchive.write(again, "localhost/pause:1", tmp_path / "pause")
    assert members(again) == members(archive)


def test_no_unfinished_archive_has_the_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"program")

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ociarchive, "_add", die)
    with pytest.raises(KeyboardInterrupt):
        ociarchive.write(tmp_path / "image.tar", "localhost/pause:1", program)
    assert not (tmp_path / "image.tar").exists()
