"""What a worker does with a plan: train, resume, choose, save."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dreambooth.errors import UserError
from dreambooth.training import keeping
from dreambooth.training.checkpoint import Checkpoint, CheckpointStore
from dreambooth.training.selection import measurement_from, score
from dreambooth.training.worker import LoraSettings, TrainingPlan, train_worker
from dreambooth.workspace.atomic import publish_dir, read_json
from dreambooth.workspace.digest import tree_digest
from tests.unit.training.conftest import make_plan, one_thread_only, pictures, settings
from tests.without_ray import arrived


class Told:
    """Takes what workers send to the driver."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.push = SimpleNamespace(remote=self._push)

    def _push(self, row: dict[str, Any]) -> SimpleNamespace:
        self.rows.append(row)
        return SimpleNamespace(future=arrived)


def train(plan: TrainingPlan) -> list[dict[str, Any]]:
    told = Told()
    train_worker({"plan": plan, "relay": told})
    return told.rows


def summary(plan: TrainingPlan) -> dict[str, Any]:
    value: dict[str, Any] | None = read_json(Path(plan.summary))
    assert value is not None
    return value


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the code under test may catch it and carry on."""


def kill_at_save(patch: pytest.MonkeyPatch, step: int, *, after: bool) -> None:
    """Ends the worker right before or after the checkpoint of `step` is saved."""
    save = CheckpointStore.save

    def dying(self: CheckpointStore, checkpoint: Checkpoint) -> None:
        if checkpoint.step == step and not after:
            raise Killed
        save(self, checkpoint)
        if checkpoint.step == step:
            raise Killed

    patch.setattr(CheckpointStore, "save", dying)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> TrainingPlan:
    """A plan that has been trained without interruption."""
    folder = tmp_path_factory.mktemp("straight")
    photos, class_images = pictures(folder / "photos", 3), pictures(folder / "class", 5)
    plan = make_plan(folder, tiny_model, photos, class_images)
    with one_thread_only():
        train(plan)
    return plan


def other(plan: TrainingPlan, folder: Path, **changes: Any) -> TrainingPlan:
    """The same work in another folder."""
    return replace(
        plan,
        output=str(folder / "model"),
        checkpoints=str(folder / "checkpoints"),
        summary=str(folder / "training.json"),
        **changes,
    )


@pytest.mark.parametrize(("step", "after"), [(3, False), (6, True), (9, False), (9, True)])
def test_a_killed_worker_ends_with_the_weights_of_one_that_was_not(
    straight: TrainingPlan, tmp_path: Path, step: int, after: bool
) -> None:
    plan = other(straight, tmp_path / "killed")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at_save(patch, step, after=after)
        train(plan)
    assert not Path(plan.output).exists()
    rows = train(plan)
    resumed = step if after else step - 3
    assert [row["resumed"] for row in rows if "resumed" in row] == ([resumed] if resumed else [])
    assert tree_digest(Path(plan.output)) == tree_digest(Path(straight.output))
    assert summary(plan) == summary(straight)


@pytest.mark.parametrize("published", [False, True])
def test_a_worker_killed_while_it_saves_the_model_goes_on_from_the_last_checkpoint(
    straight: TrainingPlan, tmp_path: Path, published: bool
) -> None:
    plan = other(straight, tmp_path / "killed")

    def dying(temporary: Path, final: Path) -> None:
        if published:
            publish_dir(temporary, final)
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(keeping, "publish_dir", dying)
        train(plan)
    assert Path(plan.output).exists() == published
    assert not Path(plan.summary).exists()
    rows = train(plan)
    assert [row["resumed"] for row in rows if "resumed" in row] == [9]
    assert tree_digest(Path(plan.output)) == tree_digest(Path(straight.output))
    assert summary(plan) == summary(straight)


def test_a_damaged_checkpoint_costs_steps_and_changes_nothing(
    straight: TrainingPlan, tmp_path: Path
) -> None:
    plan = other(straight, tmp_path / "damaged")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at_save(patch, 9, after=True)
        train(plan)
    store = CheckpointStore(Path(plan.checkpoints), plan.key)
    for step in store.steps():
        (store.path(step) / "moments.safetensors").write_bytes(b"damaged")
    train(plan)
    assert tree_digest(Path(plan.output)) == tree_digest(Path(straight.output))


def test_checkpoints_of_other_inputs_are_not_resumed_from(
    straight: TrainingPlan, tmp_path: Path
) -> None:
    plan = other(straight, tmp_path / "changed", key="another")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at_save(patch, 9, after=True)
        train(plan)
    rows = train(replace(plan, key="a third"))
    assert not [row for row in rows if "resumed" in row]
    assert summary(plan)["key"] == "a third"


def test_the_summary_has_a_loss_for_every_step_and_the_models_digest(
    straight: TrainingPlan,
) -> None:
    told = summary(straight)
    assert len(told["losses"]) == 12
    assert told["keptStep"] == 12
    assert told["digest"] == tree_digest(Path(straight.output))


def test_the_best_checkpoint_of_the_second_half_is_kept(
    straight: TrainingPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = other(straight, tmp_path / "best", encoder="efficientnet-lite0")
    saved: dict[int, Checkpoint] = {}
    save = CheckpointStore.save

    def note(self: CheckpointStore, checkpoint: Checkpoint) -> None:
        saved[checkpoint.step] = checkpoint
        save(self, checkpoint)

    monkeypatch.setattr(CheckpointStore, "save", note)
    train(plan)
    told = summary(plan)
    base = measurement_from(told["selection"]["base"])
    scores = {
        int(step): score(measurement_from(measured), base, ceiling=0.9)
        for step, measured in told["selection"]["measured"].items()
    }
    assert set(scores) == {9, 12}
    assert told["keptStep"] in scores
    if told["keptStep"] == 12:
        assert tree_digest(Path(plan.output)) == tree_digest(Path(straight.output))
    else:
        assert tree_digest(Path(plan.output)) != tree_digest(Path(straight.output))


def test_a_choice_that_was_interrupted_is_the_same_choice(
    straight: TrainingPlan, tmp_path: Path
) -> None:
    plans = [
        other(straight, tmp_path / name, encoder="efficientnet-lite0") for name in ("one", "two")
    ]
    train(plans[0])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at_save(patch, 9, after=True)
        train(plans[1])
    train(plans[1])
    assert summary(plans[1]) == summary(plans[0])


def test_lora_leaves_a_few_adapters_instead_of_a_model(
    straight: TrainingPlan, tmp_path: Path
) -> None:
    plan = other(straight, tmp_path / "lora", lora=LoraSettings(4, 4))
    train(plan)
    assert [file.name for file in Path(plan.output).iterdir()] == [
        "pytorch_lora_weights.safetensors"
    ]
    assert summary(plan)["trainedParameters"] < summary(straight)["trainedParameters"] / 2


def test_a_training_that_diverges_ends_at_once_and_names_the_learning_rate(
    straight: TrainingPlan, tmp_path: Path
) -> None:
    plan = other(straight, tmp_path / "wild", settings=settings(learning_rate=1e20))
    [error] = [row["error"] for row in train(plan) if "error" in row]
    assert isinstance(error, UserError)
    assert error.field == "spec.training.learningRate"
    assert "diverged" in error.message
    assert not Path(plan.output).exists()


def test_what_the_user_can_mend_is_told_rather_than_raised(
    straight: TrainingPlan, tmp_path: Path
) -> None:
    rows = train(other(straight, tmp_path / "gone", base_model=str(tmp_path / "no-model")))
    [error] = [row["error"] for row in rows if "error" in row]
    assert isinstance(error, UserError)
    assert "no-model" in str(error)
