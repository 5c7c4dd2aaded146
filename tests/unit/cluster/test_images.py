"""A node is given what it lacks of an image, and nothing else."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from localcluster import images, nodes, recipes
from localcluster.errors import ClusterError
from localcluster.layout import NODES, REPOSITORY
from localcluster.recipes import Image


def blob(layout: Path, content: bytes) -> str:
    """Add a part to an OCI layout; return its digest."""
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(content)
    return f"sha256:{digest}"


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    """An exported image of two layers."""
    monkeypatch.setattr(recipes, "CACHE", tmp_path)
    made = Image("small", tmp_path / "Dockerfile")
    (made.layout / "blobs" / "sha256").mkdir(parents=True)
    (made.layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    manifest = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"digest": blob(made.layout, b"configuration")},
        "layers": [{"digest": blob(made.layout, layer)} for layer in (b"system", b"our code")],
    }
    digest = blob(made.layout, json.dumps(manifest).encode())
    (made.layout / "index.json").write_text(json.dumps({"manifests": [{"digest": digest}]}))
    return made


class Node:
    """A node's container runtime: what it has, and what it was given."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.received = folder / "received.tar"
        self.digests: dict[str, str] = {}
        self.parts: set[str] = set()
        monkeypatch.setattr(nodes, "image_digests", lambda machine: self.digests)
        monkeypatch.setattr(nodes, "blobs", lambda machine: self.parts)
        monkeypatch.setattr(
            nodes, "import_command", lambda machine: ["sh", "-c", f"cat > {self.received}"]
        )

    def given(self) -> dict[str, bytes]:
        """Name and content of each file it was given."""
        with tarfile.open(fileobj=io.BytesIO(self.received.read_bytes())) as tar:
            files = [(entry.name, tar.extractfile(entry)) for entry in tar]
            return {name: file.read() for name, file in files if file}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


def test_a_node_without_it_gets_all_of_it(image: Image, node: Node) -> None:
    assert images._load(image, NODES[0])
    given = node.given()
    assert {b"configuration", b"system", b"our code"} <= set(given.values())
    (entry,) = json.loads(given["index.json"])["manifests"]
    assert entry["annotations"] == {"io.containerd.image.name": "localhost/small:dev"}
    assert entry["size"] == len(given["blobs/" + entry["digest"].replace(":", "/")])


def test_a_layer_that_a_node_has_is_not_sent_again(image: Image, node: Node) -> None:
    node.parts = {f"sha256:{hashlib.sha256(b'system').hexdigest()}"}
    assert images._load(image, NODES[0])
    assert b"system" not in node.given().values()
    assert b"our code" in node.given().values()


def test_a_node_that_has_it_gets_nothing(image: Image, node: Node) -> None:
    index = json.loads((image.layout / "index.json").read_text())
    node.digests = {image.reference: index["manifests"][0]["digest"]}
    assert not images._load(image, NODES[0])
    assert not node.received.exists()


def test_a_node_that_refuses_says_why(
    image: Image, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob(image.layout, b"")  # nothing a node would ask for
    command = ["sh", "-c", "echo no space left; exit 1"]
    monkeypatch.setattr(nodes, "import_command", lambda machine: command)
    with pytest.raises(ClusterError, match=r"cpu-0 did not take small:\nno space left"):
        images._load(image, NODES[0])


def test_an_image_without_a_dockerfile_is_left_out_and_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Image("absent", REPOSITORY / "no-such-folder" / "Dockerfile")
    assert not images._has_dockerfile(image)
    assert "absent: no no-such-folder/Dockerfile yet" in capsys.readouterr().err


def test_without_root_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match="needs root: use sudo"):
        images.ensure()
