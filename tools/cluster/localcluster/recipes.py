"""What the project's images are called and made from."""

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from localcluster.errors import ClusterError
from localcluster.layout import CACHE, REPOSITORY


@dataclass(frozen=True)
class Image:
    """One image of the project."""

    name: str
    dockerfile: Path
    arguments: tuple[tuple[str, str], ...] = ()
    root: Path = REPOSITORY

    @property
    def ignore(self) -> Path:
        """The list of what the build sees of the repository."""
        return self.dockerfile.with_name(self.dockerfile.name + ".dockerignore")

    @property
    def reference(self) -> str:
        """The name that pods use."""
        return f"localhost/{self.name}:dev"

    @property
    def layout(self) -> Path:
        """The exported image, an OCI layout: parts named by their digests, and an index."""
        return CACHE / "images" / self.name


ALL = (
    Image("dreambooth-runtime", REPOSITORY / "runtime/Dockerfile", (("ACCELERATOR", "cpu"),)),
    Image("dreambooth-operator", REPOSITORY / "operator/Dockerfile"),
)


def inputs(image: Image, base: str) -> str:
    """Return a digest of all that the image is made from."""
    digest = hashlib.sha256(repr((base, image.arguments)).encode())
    for path in sorted({image.dockerfile, image.ignore, *context(image)}):
        digest.update(str(path.relative_to(image.root)).encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def context(image: Image) -> set[Path]:
    """Return the files that a build can see: those of the list beside its Dockerfile.

    Raises:
        ClusterError: there is no such list, or it lets everything in.
    """
    lines = image.ignore.read_text(encoding="utf-8").split("\n") if image.ignore.exists() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if patterns[:1] != ["*"]:
        raise ClusterError(
            f"{image.ignore} has to begin with `*` and then name what {image.name} is made from "
            "(`!requirements/uv.txt`, one a line): how else to tell whether that has changed?"
        )
    # Of the patterns that leave something out again only the simplest are heeded here. The price
    # of missing one is a build that finds all its steps cached.
    unwanted = [p.removeprefix("**/") for p in patterns if p.startswith("**/")]
    found: set[Path] = set()
    for top in [image.root / pattern[1:] for pattern in patterns if pattern.startswith("!")]:
        found.update([top] if top.is_file() else top.rglob("*"))

    def is_wanted(path: Path) -> bool:
        parts = path.relative_to(image.root).parts
        return path.is_file() and not any(fnmatch(p, name) for p in parts for name in unwanted)

    return {path for path in found if is_wanted(path)}
