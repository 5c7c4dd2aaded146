"""Single stages of the small job, without the driver."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dreambooth.models.defaults import resolve_settings
from dreambooth.models.resolve import resolve
from dreambooth.pipeline.announcer import StageAnnouncer
from dreambooth.pipeline.context import BaseModel, StageContext
from dreambooth.pipeline.progress import Event, StageName
from dreambooth.stages.class_images import ClassImagesStage
from dreambooth.workspace.layout import Workspace
from tests.jobs import a_job, lay_out
from tests.without_ray import Work, without_ray


class Stages:
    """Runs stages of small jobs on one workspace."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.work = Work()
        self.events: list[Event] = []
        self.afterwards: list[Callable[[], object]] = []
        self._cached = False

    def context(
        self,
        name: str = "rex",
        changes: Mapping[str, Any] | None = None,
        outputs: dict[StageName, dict[str, Any]] | None = None,
        stage: StageName = StageName.CLASS_IMAGES,
    ) -> StageContext:
        """What the driver would give to a stage; `outputs` are those of the stages before."""
        asked = a_job(self.workspace, changes, name=name)
        space = Workspace(self.workspace)
        model = resolve(asked.model, workspace=space.root, manifest_dir=asked.manifest_dir)
        job = resolve_settings(asked, model.pipeline)
        self.events.clear()
        return StageContext(
            job=job,
            workspace=space,
            folder=space.job(job.id),
            base_model=BaseModel(
                model.folder,
                model.name,
                model.revision,
                model.digest,
                model.pipeline,
                job.subject.token or "sks",
                model.checker,
            ),
            outputs=outputs or {},
            progress=StageAnnouncer(stage, [self.events.append]),
            warn=lambda text: None,
            later=lambda work: self.afterwards.append(work),
        )

    def end(self) -> None:
        """What the driver does when all stages are over."""
        while self.afterwards:
            self.afterwards.pop()()

    def found_all(self) -> bool:
        """Whether the last one that was run says that it had nothing to do."""
        return self._cached

    def class_images(self, name: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The outputs of that stage; `work` says what it took."""
        context = self.context(name, changes)
        with without_ray() as self.work:
            result = ClassImagesStage().run(context)
        self._cached = result.cached
        return result.outputs


@pytest.fixture
def stages(tmp_path: Path, tiny_model: Path) -> Stages:
    return Stages(lay_out(tmp_path / "workspace", tiny_model))
