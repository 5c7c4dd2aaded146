"""Training through Ray Train, on a real Ray, by one worker and by two."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dreambooth.errors import UserError
from dreambooth.pipeline.context import StageContext
from dreambooth.pipeline.progress import StageName
from dreambooth.stages import train
from dreambooth.stages.photos import PhotosStage
from dreambooth.stages.train import TrainStage
from tests.jobs import lay_out
from tests.unit.stages.conftest import Stages
from tests.without_ray import without_ray

Prepared = tuple[Stages, dict[StageName, dict[str, Any]]]
TWENTY: dict[str, Any] = {
    "training.steps": 20,
    "training.batchSize": 4,
    "training.checkpointEvery": 20,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """In Ray's processes as in this one, from before Ray starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMBOOTH_CPU_THREADS", "1")
        yield


@pytest.fixture(scope="module", autouse=True)
def in_float32() -> Iterator[None]:
    """In bfloat16 a sum depends on its order already in the third digit."""
    plan = train.training_plan

    def in_full(*args: Any) -> Any:
        made = plan(*args)
        return replace(made, settings=replace(made.settings, compute_dtype=torch.float32))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "training_plan", in_full)
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Prepared:
    """A workspace with the pictures that training needs, and what their stages returned."""
    stages = Stages(lay_out(tmp_path_factory.mktemp("workers") / "workspace", tiny_model))
    with without_ray():
        photos = PhotosStage().run(stages.context()).outputs
    return stages, {
        StageName.PHOTOS: photos,
        StageName.CLASS_IMAGES: stages.class_images("rex"),
    }


def context_for(
    prepared: Prepared, name: str, changes: dict[str, Any] | None = None
) -> StageContext:
    stages, outputs = prepared
    context = stages.context(name, TWENTY | (changes or {}), outputs, StageName.TRAIN)
    assert PhotosStage().run(context).outputs == outputs[StageName.PHOTOS]
    return context


@pytest.mark.usefixtures("local_ray")
def test_two_workers_see_the_losses_of_one_that_waited_for_its_plan(prepared: Prepared) -> None:
    with without_ray():
        here = TrainStage().run(context_for(prepared, "here")).outputs
    context = context_for(prepared, "one")
    stage = TrainStage()
    stage.prepare(context)
    assert not context.folder.model.exists()
    one = stage.run(context).outputs
    prepared[0].end()
    assert not context.folder.ray_train.exists()
    two = TrainStage().run(context_for(prepared, "two", {"cluster.workers": 2})).outputs
    steps = [event.step for event in prepared[0].events if event.step is not None]
    assert steps and set(steps) <= set(range(1, 21))
    # Ray changes nothing about one worker; two sum in another order.
    assert one["losses"] == here["losses"] and one["digest"] == here["digest"]
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-4, rel=0)
    assert len(set(one["losses"])) == 20


@pytest.mark.usefixtures("local_ray")
def test_what_the_author_can_mend_comes_back_from_a_worker_as_such(prepared: Prepared) -> None:
    workspace = prepared[0].workspace
    shutil.copytree(workspace / "tiny", workspace / "gone")
    context = context_for(prepared, "lost", {"model.path": "gone"})
    shutil.rmtree(workspace / "gone")
    with pytest.raises(UserError, match="gone"):
        TrainStage().run(context)
    prepared[0].end()
    assert not context.folder.model.exists() and not context.folder.ray_train.exists()


@pytest.mark.usefixtures("local_ray")
def test_workers_that_nothing_comes_of_go_home(prepared: Prepared) -> None:
    context = context_for(prepared, "nothing")
    stage = TrainStage()
    stage.prepare(context)
    prepared[0].end()
    assert not context.folder.ray_train.exists() and not context.folder.model.exists()
