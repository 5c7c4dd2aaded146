"""A driver that does what a test says, at the place where the command imports the real one."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dreambooth.api.job import Job
from dreambooth.cli.main import main
from dreambooth.pipeline.progress import Event, EventKind, Listener, StageName

Script = Callable[[Job, Path, Sequence[Listener]], dict[str, Any]]

MANIFEST = """\
apiVersion: dreambooth.dev/v1alpha1
kind: DreamBoothJob
metadata:
  name: rex
spec:
  subject:
    class: dog
    photos:
      path: photos
  model:
    builtin: emoji
"""

RESULT: dict[str, Any] = {
    "name": "rex",
    "summary": "The pictures look 78 % of the way from a generic dog to your photos.",
    "stages": [
        {"name": "photos", "seconds": 0.3, "cached": True},
        {"name": "train", "seconds": 185.2, "cached": False},
    ],
    "timeline": {"seconds": 190.0, "startUpSeconds": 21.3, "stages": [{"name": "train"}]},
    "peakMemoryBytes": 3_200_000_000,
    "outputs": {
        "folder": "jobs/rex",
        "model": "model",
        "images": "images",
        "contactSheet": "contact-sheet.png",
        "report": "report.html",
    },
}


class Command:
    """The `dreambooth` command in a folder of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self.calls: list[tuple[Job, Path]] = []

    def __call__(self, *words: str, **options: Any) -> Result:
        return CliRunner().invoke(main, list(words), **options)

    def drives(self, script: Script) -> None:
        """Makes `run` do `script`."""

        def run_job(job: Job, workspace: Path, listeners: Sequence[Listener]) -> dict[str, Any]:
            self.calls.append((job, workspace))
            return script(job, workspace, listeners)

        self._put("driver", run_job=run_job)

    def draws(self, script: Callable[..., list[Path]]) -> None:
        """Makes `generate` do `script`."""
        self._put("generate", generate_more=script)

    def _put(self, name: str, **functions: Any) -> None:
        module = ModuleType(f"dreambooth.pipeline.{name}")
        vars(module).update(functions)
        self._patch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """In a folder with `job.yaml`."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "job.yaml").write_text(MANIFEST)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DREAMBOOTH_WORKSPACE", raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    yield Command(tmp_path, monkeypatch)
    signal.signal(signal.SIGTERM, handler)


def succeeds(job: Job, workspace: Path, listeners: Sequence[Listener]) -> dict[str, Any]:
    """A job that runs through."""
    train = StageName.TRAIN
    for event in (
        Event(EventKind.JOB_STARTED, message=f"job {job.name}"),
        Event(EventKind.STAGE_FINISHED, stage=StageName.PHOTOS, cached=True, seconds=0.3),
        Event(EventKind.WARNING, stage=StageName.PHOTOS, message="IMG[1].jpg is blurred"),
        Event(EventKind.STAGE_STARTED, stage=train),
        Event(EventKind.STAGE_PROGRESS, stage=train, done=0, total=240, unit="steps"),
        Event(
            EventKind.STAGE_PROGRESS,
            stage=train,
            done=120,
            total=240,
            unit="steps",
            step=120,
            loss=0.2134,
            rate=1.9,
            eta_seconds=63.0,
            message="going on from step 100",
        ),
        Event(EventKind.STAGE_FINISHED, stage=train, cached=False, seconds=185.2),
        Event(EventKind.JOB_FINISHED, seconds=190.0, message=RESULT["summary"], data=RESULT),
    ):
        for listener in listeners:
            listener(event)
    return RESULT
