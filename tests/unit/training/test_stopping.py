"""Training that ends early: out of time, or taken over by another run."""

import time
from pathlib import Path
from typing import Any

import pytest

from dreambooth.errors import InfrastructureError
from dreambooth.training import worker as module
from dreambooth.training.checkpoint import CheckpointStore
from dreambooth.training.worker import TrainingPlan
from dreambooth.workspace.digest import tree_digest
from tests.unit.training.conftest import make_plan, one_thread_only, pictures
from tests.unit.training.test_worker import other, summary, train


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> TrainingPlan:
    """A plan that has been trained without interruption."""
    folder = tmp_path_factory.mktemp("straight")
    photos, class_images = pictures(folder / "photos", 3), pictures(folder / "class", 5)
    plan = make_plan(folder, tiny_model, photos, class_images)
    with one_thread_only():
        train(plan)
    return plan


class Clock:
    """The system's clock, a second a look."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        self.now += 1.0
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.mark.parametrize("step", [0, 4, 6])
def test_out_of_time_it_stops_between_two_steps_with_checkpoint_and_model_and_can_go_on(
    straight: TrainingPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(module, "time", Clock())
    plan = other(straight, tmp_path, stop_at=step + 1.0)
    train(plan)
    assert summary(plan)["steps"] == step
    assert summary(plan)["keptStep"] == step
    assert len(summary(plan)["losses"]) == step
    assert step in CheckpointStore(Path(plan.checkpoints), plan.key).steps()
    assert summary(plan)["digest"] == tree_digest(Path(plan.output))

    again = other(straight, tmp_path)
    rows = train(again)
    assert [row["resumed"] for row in rows if "resumed" in row] == [step]
    assert tree_digest(Path(again.output)) == tree_digest(Path(straight.output))
    assert summary(again) == summary(straight)


def test_time_enough_changes_nothing(straight: TrainingPlan, tmp_path: Path) -> None:
    plan = other(straight, tmp_path, stop_at=time.time() + 1e6)
    train(plan)
    assert summary(plan) == summary(straight)


def test_a_training_that_was_taken_over_writes_nothing_more(
    straight: TrainingPlan, tmp_path: Path
) -> None:
    plan = other(straight, tmp_path, owner="old")
    store = CheckpointStore(Path(plan.checkpoints), plan.key)
    store.take_over("old")
    store.take_over("new")
    rows = train(plan)
    (error,) = [row["error"] for row in rows if "error" in row]
    assert isinstance(error, InfrastructureError)
    assert error.reason == "TrainingSuperseded"
    assert store.steps() == []
    assert not Path(plan.output).exists()


def test_the_training_that_took_over_writes(straight: TrainingPlan, tmp_path: Path) -> None:
    plan = other(straight, tmp_path, owner="new")
    store = CheckpointStore(Path(plan.checkpoints), plan.key)
    store.take_over("old")
    store.take_over("new")
    train(plan)
    assert summary(plan) == summary(straight)
