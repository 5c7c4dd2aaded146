"""A small job that was run from beginning to end, and copies of its workspace to go on with."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dreambooth.pipeline.driver import run_job
from dreambooth.pipeline.progress import Event, EventKind
from dreambooth.workspace.layout import JobFolder, Workspace
from tests.jobs import a_job, lay_out
from tests.without_ray import Work, without_ray


class Run:
    """One run of the small job, with `changes` to its manifest, on `workspace`."""

    def __init__(
        self,
        workspace: Path,
        changes: Mapping[str, Any] | None = None,
        listener: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.workspace = workspace
        self.job = a_job(workspace, changes)
        self.events: list[Event] = []
        self.result: dict[str, Any] = {}
        self.work = Work()
        self._listener = listener

    def __call__(self) -> "Run":
        with without_ray() as self.work:
            self.result = run_job(self.job, self.workspace, [self.events.append, self._listener])
        return self

    @property
    def folder(self) -> JobFolder:
        return Workspace(self.workspace).job(self.job.id)

    def read(self, name: str) -> dict[str, Any]:
        """The job's `result` or `progress` as it is on the disk."""
        value: dict[str, Any] = json.loads(getattr(self.folder, name).read_text())
        return value

    @property
    def ran(self) -> list[str]:
        """The stages that were begun and finished, not skipped."""
        begun = {event.stage for event in self.events if event.kind is EventKind.STAGE_STARTED}
        return [
            event.stage.value
            for event in self.events
            if event.kind is EventKind.STAGE_FINISHED and event.stage in begun and event.stage
        ]


def pictures_of(run: Run) -> dict[str, bytes]:
    """Every picture on the workspace that a job made."""
    return {
        str(file.relative_to(run.workspace)): file.read_bytes()
        for folder in (run.folder.root, Workspace(run.workspace).pictures)
        for file in sorted(folder.rglob("*.png"))
    }


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """The small job, run once from beginning to end. Not to be written to."""
    return Run(lay_out(tmp_path_factory.mktemp("undisturbed") / "workspace", tiny_model))()


@pytest.fixture
def finished(tmp_path: Path, undisturbed: Run) -> Iterator[Path]:
    """A copy of the workspace that the small job was run on."""
    yield Path(shutil.copytree(undisturbed.workspace, tmp_path / "workspace"))


@pytest.fixture
def fresh(tmp_path: Path, tiny_model: Path) -> Path:
    """A workspace with photos and a model."""
    return lay_out(tmp_path / "workspace", tiny_model)
