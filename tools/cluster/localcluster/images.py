"""The project's images: built with buildah from ordinary Dockerfiles, loaded into the nodes."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from localcluster import debian, nodes
from localcluster.commands import run, run_logged, succeeds
from localcluster.console import say, timed
from localcluster.errors import ClusterError
from localcluster.layout import CACHE, NODES, REPOSITORY, Machine
from localcluster.locking import exclusive

# Stands in for python:3.11-slim where no registry can be reached.
_BASE_SUITE = "bookworm"
_BASE_PACKAGES = ("bash", "ca-certificates", "python3", "python3-venv")
_RUN = Path("/run/dreambooth-buildah")
_BUILDAH = ("buildah", "--root", str(CACHE / "buildah"), "--runroot", str(_RUN))
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Image:
    """One image of the project."""

    name: str
    dockerfile: Path
    arguments: tuple[tuple[str, str], ...] = ()

    @property
    def reference(self) -> str:
        """The name that pods use."""
        return f"localhost/{self.name}:dev"

    @property
    def layout(self) -> Path:
        """The exported image: its manifest and its parts, named by their digests."""
        return CACHE / "images" / self.name


ALL = (
    Image("dreambooth-runtime", REPOSITORY / "runtime/Dockerfile", (("ACCELERATOR", "cpu"),)),
    Image("dreambooth-operator", REPOSITORY / "operator/Dockerfile"),
)


def ensure() -> bool:
    """Build, export and load what changed; tell whether anything did.

    Raises:
        ClusterError: a build failed; the message ends with the log's end.
    """
    if os.geteuid() != 0:
        raise ClusterError("building images without a container engine needs root: use sudo")
    changed = debian.ensure(debian.FOR_IMAGES)
    with exclusive():
        for image in ALL:
            changed |= _ensure(image)
    return changed


def _ensure(image: Image) -> bool:
    if not image.dockerfile.exists():
        say(f"{image.name}: no {image.dockerfile.relative_to(REPOSITORY)} yet")
        return False
    changed = _build(image)
    for machine in NODES:
        if machine.containerd_socket.exists() and not nodes.stopped(machine):
            changed |= _load(image, machine)
        else:
            say(f"{image.name}: {machine.name} does not run, not loaded there")
    return changed


def release() -> None:
    """Unmount what a build that was killed left mounted; the cache itself stays."""
    for line in reversed(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()):
        target = Path(line.split()[4])
        if target.is_relative_to(CACHE / "buildah") or target.is_relative_to(_RUN):
            run(["umount", "--lazy", target])
    shutil.rmtree(_RUN, ignore_errors=True)


# --- building ----------------------------------------------------------------------------


def _build(image: Image) -> bool:
    """Build and export an image unless its inputs are those of the last time."""
    base = os.environ.get("BASE") or _base()
    inputs = _inputs(image, base)
    stamp = image.layout.with_suffix(".inputs")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == inputs and image.layout.is_dir():
        return False
    arguments = [f"--build-arg={key}={value}" for key, value in image.arguments]
    ignore = image.dockerfile.with_name(image.dockerfile.name + ".dockerignore")
    # The same downloads as the developer's own environment: gigabytes.
    packages = CACHE.parent / "uv"
    packages.mkdir(parents=True, exist_ok=True)
    volumes = [f"--volume={packages}:/root/.cache/uv"]
    if _CERTIFICATES.exists():
        volumes.append(f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro")
    with timed(f"building {image.name}"):
        run_logged(
            [*_BUILDAH, "bud", "--isolation=chroot", "--layers", f"--build-arg=BASE={base}"]
            + [*arguments, *volumes, f"--file={image.dockerfile}", f"--tag={image.reference}"]
            + ([f"--ignorefile={ignore}"] if ignore.exists() else [])
            + [str(REPOSITORY)],
            _log(image.name),
            environment={**os.environ, "TMPDIR": str(_folder("tmp"))},
            timeout=1500,
        )
    with timed(f"exporting {image.name}"):
        # Layers as they are: compressing gigabytes costs more than copying them on one machine.
        run_logged(
            [*_BUILDAH, "push", "--disable-compression", image.reference] + [f"dir:{image.layout}"],
            _log(f"export-{image.name}"),
            environment={**os.environ, "TMPDIR": str(_folder("tmp"))},
            timeout=900,
        )
    stamp.write_text(inputs, encoding="utf-8")
    return True


def _inputs(image: Image, base: str) -> str:
    """Return a digest of all that the image is made from."""
    digest = hashlib.sha256(repr((base, image.arguments)).encode())
    ignored = {"__pycache__"}
    for top in ("requirements", "tools/cluster/image", image.dockerfile.parent.name):
        for path in sorted((REPOSITORY / top).rglob("*")):
            if path.is_file() and not ignored.intersection(path.parts):
                digest.update(str(path.relative_to(REPOSITORY)).encode() + b"\0")
                digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _base() -> str:
    """Return a small Debian with Python, made from Debian packages."""
    wanted = hashlib.sha256(repr((_BASE_SUITE, _BASE_PACKAGES)).encode()).hexdigest()[:12]
    name = f"localhost/dreambooth-base:{wanted}"
    if succeeds([*_BUILDAH, "inspect", "--type=image", name]):
        return name
    archive = _folder("images") / f"base-{wanted}.tar"
    if not archive.exists():
        with timed("making the base image from Debian packages"):
            unfinished = archive.with_suffix(".part.tar")
            run_logged(
                ["mmdebstrap", "--variant=minbase", f"--include={','.join(_BASE_PACKAGES)}"]
                + [_BASE_SUITE, str(unfinished)],
                _log("base"),
                environment={**os.environ, "TMPDIR": str(_folder("tmp"))},
                timeout=600,
            )
            unfinished.rename(archive)
    container = run([*_BUILDAH, "from", "scratch"]).strip()
    run([*_BUILDAH, "add", container, archive, "/"], timeout=300)
    run([*_BUILDAH, "config", "--cmd", "/bin/bash", container])
    run([*_BUILDAH, "commit", "--rm", container, name], timeout=300)
    return name


def _folder(name: str) -> Path:
    path = CACHE / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def _log(name: str) -> Path:
    return CACHE / "logs" / f"image-{name}.log"


# --- loading -----------------------------------------------------------------------------


def _load(image: Image, machine: Machine) -> bool:
    """Hand an image to a node, without the layers that it already has."""
    manifest = (image.layout / "manifest.json").read_bytes()
    digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    if nodes.image_digests(machine).get(image.reference) == digest:
        return False
    content = json.loads(manifest)
    parts = [part["digest"] for part in (content["config"], *content["layers"])]
    present = nodes.blobs(machine)
    absent = [part for part in dict.fromkeys(parts) if part not in present]
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": content["mediaType"],
                "digest": digest,
                "size": len(manifest),
                "annotations": {"io.containerd.image.name": image.reference},
            }
        ],
    }
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        f"blobs/sha256/{digest.removeprefix('sha256:')}": manifest,
    }
    with timed(f"loading {image.name} into {machine.name} ({len(absent)} of {len(parts)} parts)"):
        _stream(image, machine, files, absent)
    return True


def _stream(image: Image, machine: Machine, files: dict[str, bytes], absent: list[str]) -> None:
    """Feed an OCI archive to a node's import, written as it is read."""
    with subprocess.Popen(
        nodes.import_command(machine),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdin, mode="w|") as tar:
                for name, content in files.items():
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
                for digest in absent:
                    name = digest.removeprefix("sha256:")
                    tar.add(image.layout / name, f"blobs/sha256/{name}")
            process.stdin.close()
        except BrokenPipeError:
            pass  # it says why on its output
        output = process.stdout.read().decode()
    if process.returncode:
        raise ClusterError(f"{machine.name} did not take {image.name}:\n{output[-2000:]}")
