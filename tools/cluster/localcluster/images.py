"""The project's images: built with buildah from ordinary Dockerfiles, loaded into the nodes."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from localcluster import debian, nodes, recipes
from localcluster.commands import run, run_logged, succeeds
from localcluster.console import say, timed
from localcluster.errors import ClusterError
from localcluster.layout import CACHE, NODES, REPOSITORY, Machine
from localcluster.locking import CLUSTER, exclusive
from localcluster.recipes import Image

# Stands in for python:3.11-slim where no registry can be reached.
_BASE_SUITE = "bookworm"
_BASE_PACKAGES = ("bash", "ca-certificates", "python3", "python3-venv")
_RUN = Path("/run/dreambooth-buildah")
_BUILDAH = ("buildah", "--root", str(CACHE / "buildah"), "--runroot", str(_RUN))
# Untagged builds and stages that stay: what the next build of each image starts from.
_KEPT_BUILDS = 4
# Where builds find the packages that were downloaded before.
_DOWNLOADS = "/var/cache/uv"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def ensure() -> bool:
    """Build, export and load what changed; tell whether anything did.

    Raises:
        ClusterError: a build failed; the message ends with the log's end.
    """
    if os.geteuid() != 0:
        raise ClusterError("building images without a container engine needs root: use sudo")
    changed = debian.ensure(debian.FOR_IMAGES)
    with exclusive(CLUSTER):
        ready = [image for image in recipes.ALL if _has_dockerfile(image)]
        for image in ready:
            changed |= _build(image)
        # Side by side: a node unpacks what it gets on one core.
        with ThreadPoolExecutor(len(NODES)) as pool:
            changed |= any([*pool.map(partial(_load_all, ready), NODES)])
    return changed


def _has_dockerfile(image: Image) -> bool:
    if image.dockerfile.exists():
        return True
    say(f"{image.name}: no {image.dockerfile.relative_to(REPOSITORY)} yet")
    return False


def _load_all(ready: Sequence[Image], machine: Machine) -> bool:
    """Hand images to a node if it runs; tell whether it lacked any."""
    if nodes.stopped(machine) or not machine.containerd_socket.exists():
        say(f"{machine.name} does not run, no images loaded there")
        return False
    return any([_load(image, machine) for image in ready])


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
    inputs = recipes.inputs(image, base)
    stamp = image.layout.with_suffix(".inputs")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == inputs and image.layout.is_dir():
        return False
    arguments = [f"--build-arg={key}={value}" for key, value in image.arguments]
    # The same downloads as the developer's own environment: gigabytes.
    packages = CACHE.parent / "uv"
    packages.mkdir(parents=True, exist_ok=True)
    volumes = [f"--volume={packages}:{_DOWNLOADS}", f"--build-arg=UV_CACHE_DIR={_DOWNLOADS}"]
    if _CERTIFICATES.exists():
        volumes.append(f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro")
    with timed(f"building {image.name}"):
        run_logged(
            [*_BUILDAH, "bud", "--isolation=chroot", "--layers", f"--build-arg=BASE={base}"]
            + [*arguments, *volumes, f"--file={image.dockerfile}", f"--tag={image.reference}"]
            + [f"--ignorefile={image.ignore}", str(image.root)],
            _log(image.name),
            environment={**os.environ, "TMPDIR": str(_folder("tmp"))},
            timeout=1500,
        )
    with timed(f"exporting {image.name}"):
        _export(image)
    stamp.write_text(inputs, encoding="utf-8")
    _forget_old_builds()
    return True


def _export(image: Image) -> None:
    """Write the parts that the image's layout lacks, and delete those that it needs no more."""
    # The index would list earlier builds for ever.
    (image.layout / "index.json").unlink(missing_ok=True)
    image.layout.parent.mkdir(parents=True, exist_ok=True)
    # Layers as they are: compressing gigabytes costs more than copying them on one machine, and
    # only under the names they have in the store are those of the last time found and kept.
    # Buildah's own push always compresses for this format.
    store = f"overlay@{CACHE / 'buildah'}+{_RUN}"
    run_logged(
        ["skopeo", "--insecure-policy", "copy", "--dest-oci-accept-uncompressed-layers"]
        + [f"containers-storage:[{store}]{image.reference}", f"oci:{image.layout}"],
        _log(f"export-{image.name}"),
        environment={**os.environ, "TMPDIR": str(_folder("tmp"))},
        timeout=900,
    )
    digest, manifest = _manifest(image)
    wanted = {digest, *_parts(manifest)}
    for part in (image.layout / "blobs" / "sha256").iterdir():
        if f"sha256:{part.name}" not in wanted:
            part.unlink()


def _forget_old_builds() -> None:
    """Remove what former builds left in buildah's store; the latest of them speed up the next."""
    listed = run([*_BUILDAH, "images", "--filter=dangling=true", "--format={{.ID}}"])
    for old in listed.split()[_KEPT_BUILDS:]:
        # One that another is built on stays.
        succeeds([*_BUILDAH, "rmi", old])


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


def _manifest(image: Image) -> tuple[str, Any]:
    """Return the digest and the content of the exported image's manifest."""
    index = json.loads((image.layout / "index.json").read_text(encoding="utf-8"))
    digest: str = index["manifests"][0]["digest"]
    return digest, json.loads(_blob(image, digest).read_text(encoding="utf-8"))


def _parts(manifest: Any) -> list[str]:
    """Return the digests of an image's configuration and layers."""
    return [part["digest"] for part in (manifest["config"], *manifest["layers"])]


def _blob(image: Image, digest: str) -> Path:
    return image.layout / "blobs" / digest.replace(":", "/")


def _load(image: Image, machine: Machine) -> bool:
    """Hand an image to a node, without the layers that it already has."""
    digest, manifest = _manifest(image)
    if nodes.image_digests(machine).get(image.reference) == digest:
        return False
    parts = dict.fromkeys(_parts(manifest))
    present = nodes.blobs(machine)
    absent = [part for part in parts if part not in present]
    entry = {
        "mediaType": manifest["mediaType"],
        "digest": digest,
        "size": _blob(image, digest).stat().st_size,
        "annotations": {"io.containerd.image.name": image.reference},
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    with timed(f"loading {image.name} into {machine.name} ({len(absent)} of {len(parts)} parts)"):
        _stream(image, machine, index, [digest, *absent])
    return True


def _stream(image: Image, machine: Machine, index: bytes, parts: list[str]) -> None:
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
                entry = tarfile.TarInfo("index.json")
                entry.size = len(index)
                tar.add(image.layout / "oci-layout", "oci-layout")
                tar.addfile(entry, io.BytesIO(index))
                for digest in parts:
                    tar.add(_blob(image, digest), f"blobs/{digest.replace(':', '/')}")
            process.stdin.close()
        except BrokenPipeError:
            pass  # it says why on its output
        output = process.stdout.read().decode()
    if process.returncode:
        raise ClusterError(f"{machine.name} did not take {image.name}:\n{output[-2000:]}")
