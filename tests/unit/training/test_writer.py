"""Checkpoints written beside the training."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreambooth.errors import InfrastructureError
from dreambooth.training.checkpoint import Checkpoint, CheckpointStore
from dreambooth.training.tensor_files import write_tensors
from dreambooth.training.writer import BackgroundWriter, worth_writing


def state(step: int) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((3,), float(step))}, {}, {"losses": [0.5] * step})


class SlowStore(CheckpointStore):
    """Writes when it is allowed to, and fails if told so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "key")
        self.begun = threading.Event()
        self.allowed = threading.Event()
        self.failure: BaseException | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        self.begun.set()
        assert self.allowed.wait(timeout=60)
        if self.failure is not None:
            raise self.failure
        super().save(checkpoint)


@pytest.fixture
def store(tmp_path: Path) -> SlowStore:
    return SlowStore(tmp_path / "checkpoints")


def test_training_goes_on_meanwhile_and_what_is_written_is_how_it_was(store: SlowStore) -> None:
    writer = BackgroundWriter(store)
    now = state(3)
    writer.submit(now, set())
    assert store.begun.wait(timeout=60)
    now.weights["w"].fill_(99.0)
    now.meta["losses"].append(0.1)
    assert store.steps() == []
    store.allowed.set()
    writer.wait()
    saved = store.load(3)
    assert saved.weights["w"].tolist() == [3.0, 3.0, 3.0]
    assert saved.meta["losses"] == [0.5] * 3


def test_older_ones_are_removed_only_when_the_new_one_is_there(store: SlowStore) -> None:
    store.allowed.set()
    writer = BackgroundWriter(store)
    for step in (3, 6):
        writer.submit(state(step), {3})
    writer.wait()
    assert store.steps() == [3, 6]
    store.allowed.clear()
    store.begun.clear()
    writer.submit(state(9), {6})
    assert store.begun.wait(timeout=60)
    assert store.steps() == [3, 6]
    store.allowed.set()
    writer.wait()
    assert store.steps() == [6, 9]


@pytest.mark.parametrize("look", ["check", "wait", "submit"])
def test_a_write_that_failed_is_raised_where_training_looks_next_and_once(
    store: SlowStore, look: str
) -> None:
    writer = BackgroundWriter(store)
    store.failure = InfrastructureError("the disk is full")
    writer.submit(state(3), set())
    writer.check()
    store.allowed.set()
    writer.close()
    looks: dict[str, Callable[[], None]] = {
        "check": writer.check,
        "wait": writer.wait,
        "submit": lambda: writer.submit(state(6), set()),
    }
    with pytest.raises(InfrastructureError, match="disk is full"):
        looks[look]()
    writer.check()
    assert store.steps() == []


def test_a_checkpoint_is_worth_it_if_the_work_took_longer_than_writing_will() -> None:
    assert worth_writing(state_bytes=12_000_000_000, seconds_of_work=30.0)
    assert not worth_writing(state_bytes=12_000_000_000, seconds_of_work=2.5)
    assert worth_writing(state_bytes=40_000_000, seconds_of_work=2.5)


def test_tensors_written_one_by_one_are_what_the_library_would_have_written(
    tmp_path: Path,
) -> None:
    tensors = {
        "image": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "half": torch.randn(5).bfloat16(),
        "count": torch.tensor(7),
        "number": torch.tensor(0.25),
        "odd": torch.randn(3).half(),
        "none": torch.zeros(0, 4),
        "part": torch.randn(6, 6)[::2, 1:3],
    }
    write_tensors(tmp_path / "ours", tensors)
    save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / "theirs")
    ours, theirs = load_file(tmp_path / "ours"), load_file(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert all(ours[name].dtype == theirs[name].dtype for name in theirs)
