"""What `test_bad_inputs` sets the table with: a job that would run, and ways to spoil it."""

import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from dreambooth.cli.main import main
from tests.fake_hub import FakeHub, Repo
from tests.serving import QuietHandler
from tests.unit.photos.pictures import save_photos

COMMIT = "c" * 40

_HOLDER = """
import sys
from pathlib import Path
from dreambooth.workspace.lock import exclusive
with exclusive(Path(sys.argv[1]), what="job rex"):
    print("held", flush=True)
    sys.stdin.read()
"""


class Setup:
    """A folder with `job.yaml`, three photos in `rex/` and a small model in `base/`."""

    def __init__(self, folder: Path, model: Path, hub: FakeHub, clean_up: ExitStack) -> None:
        self.folder, self.model, self.hub, self.clean_up = folder, model, hub, clean_up
        self.file, self.workspace = folder / "job.yaml", folder / "ws"
        self.photos = folder / "rex"
        save_photos(self.photos, 3)
        self.manifest: dict[str, Any] = {
            "apiVersion": "dreambooth.dev/v1alpha1",
            "kind": "DreamBoothJob",
            "metadata": {"name": "rex"},
            "spec": {
                "subject": {"class": "dog", "photos": {"path": "rex"}},
                "model": {"builtin": "emoji"},
            },
        }
        self._write()

    def set(self, path: str, value: Any) -> None:
        """Sets one field, `spec.training.steps`; None removes it."""
        *parents, last = path.split(".")
        block = self.manifest
        for name in parents:
            block = block.setdefault(name, {})
        block[last] = value
        if value is None:
            del block[last]
        self._write()

    def text(self, content: str | bytes) -> None:
        """The manifest's file, whatever it holds."""
        self.file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def only_photo(self, name: str, content: bytes) -> None:
        """Puts one photo into `rex/`, beside those that are good."""
        (self.photos / name).write_bytes(content)

    def local_model(self) -> Path:
        """A copy of a good model in `base/`, which the manifest names."""
        shutil.copytree(self.model, self.folder / "base")
        self.set("spec.model", {"path": "base"})
        return self.folder / "base"

    def hub_model(self) -> Repo:
        """A good model on the hub, which the manifest names."""
        files = {
            path.relative_to(self.model).as_posix(): path.read_bytes()
            for path in self.model.rglob("*")
            if path.is_file()
        }
        repo = self.hub.models["me/tiny"] = Repo(files, COMMIT)
        self.set("spec.model", {"repo": "me/tiny", "revision": COMMIT})
        return repo

    def mount(self, options: str) -> None:
        """Makes the workspace a file system of its own, in memory."""
        self.workspace.mkdir(exist_ok=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.workspace)],
            capture_output=True,
            text=True,
        )
        if mounted.returncode != 0:
            pytest.skip(f"a real file system of its own needs root: {mounted.stderr.strip()}")
        self.clean_up.callback(
            subprocess.run, ["umount", "--lazy", str(self.workspace)], check=True
        )

    def forbid_writing(self) -> None:
        """Makes the workspace read-only, for root too."""
        if os.geteuid() == 0:
            self.mount("size=1m,ro")
            return
        self.workspace.mkdir()
        self.workspace.chmod(0o555)
        self.clean_up.callback(self.workspace.chmod, 0o755)

    def run_it_elsewhere(self) -> None:
        """Lets another process hold the job."""
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(self.workspace / "jobs" / "rex" / ".lock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "runtime"},
        )
        self.clean_up.callback(holder.communicate)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"

    def run(self, *options: str) -> Result:
        """`dreambooth run job.yaml --workspace ws`."""
        words = ["run", str(self.file), "--workspace", str(self.workspace), *options]
        return CliRunner().invoke(main, words)

    def inputs(self) -> dict[str, str]:
        """What the user has brought: digests by name."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            if self.workspace not in path.parents and _is_plain(path):
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256")
                found[path.relative_to(self.folder).as_posix()] = digest.hexdigest()
        return found

    def half_written(self) -> list[str]:
        """What is on the workspace and should not be: torn files, temporary ones, results.

        Photos come first: they are whole, and used again, where something else was wrong.
        """
        photos = self.workspace / "jobs" / "rex"
        whole = [photos / "photos", photos / "stages" / "photos.json"]
        finished = whole if all(path.exists() for path in whole) else []
        return [
            path.relative_to(self.workspace).as_posix()
            for path in sorted(self.workspace.rglob("*"))
            if (_looks_unfinished(path.relative_to(self.workspace)) and path not in finished)
            or _is_torn(path)
        ]

    def _write(self) -> None:
        self.file.write_text(yaml.safe_dump(self.manifest))


Spoil = Callable[[Setup], object]


@dataclass(frozen=True)
class Case:
    """A bad input and what its author hears.

    Attributes:
        title: What is wrong.
        spoil: Makes it so.
        field: The manifest's field or the file that the message begins with.
        says: What was found.
        remedy: What to do.
        code: The exit code.
    """

    title: str
    spoil: Spoil
    field: str
    says: str
    remedy: str
    code: int = 2


def text(content: str | bytes) -> Spoil:
    """Writes this instead of the manifest."""
    return lambda job: job.text(content)


def put(path: str, value: Any) -> Spoil:
    """Sets a field; None removes it."""
    return lambda job: job.set(path, value)


def photo(name: str, content: bytes) -> Spoil:
    """Puts a bad photo beside the good ones."""
    return lambda job: job.only_photo(name, content)


def unreadable(job: Setup) -> None:
    """Forbids reading one photo, to root too."""
    real = Path.open

    def refuse(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if self.name == "photo-1.png" and "r" in mode:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return real(self, mode, *rest, **options)

    job.clean_up.enter_context(pytest.MonkeyPatch.context()).setattr(Path, "open", refuse)


def uri(path: str, status: int = 404, body: bytes = b"", kind: str = "image/png") -> Spoil:
    """Photos at an address of a server that answers like this."""

    def answers(handler: QuietHandler) -> bool:
        if handler.path == path:
            handler.reply(status, body, {"Content-Type": kind})
        return handler.path == path

    def spoil(job: Setup) -> None:
        job.hub.faults.append(answers)
        job.set("spec.subject.photos", {"uri": job.hub.address + path})

    return spoil


def model_file(name: str, change: Callable[[bytes], bytes | None]) -> Spoil:
    """Changes, or with None removes, a file of a local model."""

    def spoil(job: Setup) -> None:
        file = job.local_model() / name
        changed = change(file.read_bytes() if file.exists() else b"")
        file.unlink(missing_ok=True)
        if changed is not None:
            file.write_bytes(changed)

    return spoil


def pickles_only(job: Setup) -> None:
    """Gives all weights of a local model the names of pickles."""
    for file in job.local_model().rglob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))


def hub_repo(**changes: Any) -> Spoil:
    """A model on the hub with attributes of its own, see `Repo`."""

    def spoil(job: Setup) -> None:
        repo = job.hub_model()
        for name, value in changes.items():
            setattr(repo, name, value)

    return spoil


def _is_plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _looks_unfinished(path: Path) -> bool:
    finished_only = {"photos", "model", "images", "result.json", "report.html", "ready"}
    return (
        path.name.startswith(".tmp-")
        or path.suffix == ".incomplete"
        or path.name in finished_only
        or (path.parent.name == "stages" and path.suffix == ".json")
    )


def _is_torn(path: Path) -> bool:
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return True
    return False
