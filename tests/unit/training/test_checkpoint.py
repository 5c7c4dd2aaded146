"""Training state on the disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dreambooth.training import checkpoint as checkpoints
from dreambooth.training.checkpoint import Checkpoint, CheckpointStore


def state(step: int) -> Checkpoint:
    return Checkpoint(
        step,
        {"w": torch.full((3, 2), float(step))},
        {"w|step": torch.tensor(float(step)), "w|exp_avg": torch.arange(6.0).view(3, 2)},
        {"losses": [0.5] * step},
    )


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", "key")


def test_what_is_saved_comes_back(store: CheckpointStore) -> None:
    store.save(state(3))
    loaded = store.latest()
    assert loaded is not None
    assert loaded.step == 3
    assert torch.equal(loaded.weights["w"], state(3).weights["w"])
    assert {n: t.tolist() for n, t in loaded.moments.items()} == {
        n: t.tolist() for n, t in state(3).moments.items()
    }
    assert loaded.meta["losses"] == [0.5] * 3


def test_without_a_checkpoint_there_is_none(store: CheckpointStore) -> None:
    assert store.latest() is None


def truncate(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / name
        file.write_bytes(file.read_bytes()[:-20])

    return damage


def empty(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(b"")

    return damage


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize("damage", [truncate, empty, lose])
@pytest.mark.parametrize("name", ["weights.safetensors", "moments.safetensors", "meta.json"])
def test_of_a_damaged_checkpoint_and_an_older_one_the_older_is_used(
    store: CheckpointStore, damage: Callable[[str], Callable[[Path], None]], name: str
) -> None:
    store.save(state(3))
    store.save(state(6))
    damage(name)(store.path(6))
    found = store.latest()
    assert found is not None
    assert found.step == 3


def test_when_all_are_damaged_training_starts_anew(store: CheckpointStore) -> None:
    store.save(state(3))
    truncate("weights.safetensors")(store.path(3))
    assert store.latest() is None


def test_checkpoints_of_other_inputs_and_torn_ones_are_removed(
    store: CheckpointStore, tmp_path: Path
) -> None:
    CheckpointStore(tmp_path / "checkpoints", "other").save(state(9))
    store.save(state(3))
    store.save(state(6))
    lose("meta.json")(store.path(6))
    (tmp_path / "checkpoints" / ".tmp-123-step-000012").mkdir()
    store.prepare()
    assert [entry.name for entry in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]


def test_a_write_that_is_cut_short_shows_nothing(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    store.save(state(3))
    monkeypatch.setattr(checkpoints, "publish_dir", die)
    with pytest.raises(KeyboardInterrupt):
        store.save(state(6))
    assert [entry.name for entry in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]


def test_only_the_wanted_ones_are_kept(store: CheckpointStore) -> None:
    for step in (3, 6, 9):
        store.save(state(step))
    store.keep_only({3, 9})
    assert store.steps() == [3, 9]


def test_saving_the_same_step_again_replaces_it(store: CheckpointStore) -> None:
    store.save(state(3))
    shutil.rmtree(store.path(3))
    store.save(state(3))
    store.save(state(3))
    assert store.steps() == [3]
    assert store.load(3).step == 3
