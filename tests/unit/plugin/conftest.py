"""A cluster in a folder, and a kubectl that knows no other."""

import io
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from kubectl_dreambooth.cli import main
from kubectl_dreambooth.kubectl import Kubectl

FAKE = Path(__file__).with_name("fake_kubectl.py")
FOLDER = "jobs/rex-0a1b"


class Cluster:
    """What the fake kubectl sees."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("jobs", "pods", "events", "workspace"):
            (root / name).mkdir(parents=True)
        self.program = root / "kubectl"
        self.program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{FAKE}" "{root}" "$@"\n')
        self.program.chmod(0o755)

    def add(self, job: dict[str, Any]) -> None:
        (self.root / "jobs" / job["metadata"]["name"]).write_text(json.dumps(job))

    def job(self, name: str = "rex") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "jobs" / name).read_text())
        return found

    def will_tell(self, *events: tuple[str, dict[str, Any]]) -> None:
        """What watches are told, one event each."""
        for number, (kind, job) in enumerate(events):
            file = self.root / "events" / f"{number:03d}"
            file.write_text(json.dumps({"type": kind, "object": job}))

    def add_head(self) -> None:
        pod = {"metadata": {"name": "rex-head", "labels": {"ray.io/node-type": "head"}}}
        (self.root / "pods" / "rex-head").write_text(json.dumps(pod))

    def scripts(self, **script: Any) -> None:
        (self.root / "script.json").write_text(json.dumps(script))

    @property
    def pods(self) -> list[str]:
        return sorted(file.name for file in (self.root / "pods").iterdir())

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.root / "calls.txt").read_text().splitlines()]

    @property
    def folder(self) -> Path:
        """The job's folder on the volume."""
        return self.root / "workspace" / FOLDER

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(program=str(self.program))


def a_job(phase: str = "Running", name: str = "rex", **status: Any) -> dict[str, Any]:
    """A job with a volume, as the API server would print it."""
    return {
        "apiVersion": "dreambooth.dev/v1alpha1",
        "kind": "DreamBoothJob",
        "metadata": {"name": name, "namespace": "team", "uid": "0a1b"},
        "spec": {"suspend": False},
        "status": {
            "phase": phase,
            "resolved": {"claimName": "team-volume", "image": "dreambooth-runtime:1"},
            **status,
        },
    }


def training(step: int) -> dict[str, Any]:
    """A job in the middle of its training."""
    return a_job(
        stage="train",
        progress={
            "percent": step // 4, "etaSeconds": 250, "step": step, "totalSteps": 300, "loss": 0.12,
        },
        stages=[
            {"name": "photos", "state": "Succeeded", "done": 5, "total": 5, "unit": "photos"},
            {"name": "classImages", "state": "Succeeded", "cached": True},
            {"name": "train", "state": "Running", "done": step, "total": 300, "unit": "steps"},
        ],
    )  # fmt: skip


def succeeded() -> dict[str, Any]:
    """A job with results."""
    return a_job(
        "Succeeded",
        outputs={
            "folder": FOLDER,
            "model": f"{FOLDER}/model",
            "images": f"{FOLDER}/images",
            "contactSheet": f"{FOLDER}/contact-sheet.png",
            "report": f"{FOLDER}/report.html",
        },
        quality={"summary": "78 % of the way.", "subjectFidelity": 0.8},
        display={"progress": "100%", "fidelity": "0.80 (efficientnet-lite0)"},
    )


def png(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster with one job's results on its volume, though no job yet."""
    made = Cluster(tmp_path / "cluster")
    monkeypatch.setenv("KUBECTL", str(made.program))
    monkeypatch.setattr("kubectl_dreambooth.watching.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("kubectl_dreambooth.logs.PAUSE_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    pictures = made.folder / "images" / "photo-of-a-sks-dog-1a2b3c"
    pictures.mkdir(parents=True)
    for index in range(3):
        (pictures / f"{index:04d}.png").write_bytes(png((index * 80, 0, 0)))
    (pictures / "it's a dog\nwith $(id).png").write_bytes(png())
    (made.folder / "contact-sheet.png").write_bytes(png())
    (made.folder / "report.html").write_text("<p>report</p>")
    (made.folder / "model").mkdir()
    (made.folder / "model" / "unet.safetensors").write_bytes(b"weights")
    (made.folder / "log.txt").write_text("one\ntwo\n")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield made
    for number, handler in handlers.items():
        signal.signal(number, handler)


def plugin(*words: str) -> Result:
    """Runs `kubectl dreambooth WORDS`."""
    return CliRunner().invoke(main, list(words))
