"""Drawing a list of pictures batch by batch."""

from collections.abc import Sequence

import pytest
import torch

from dreambooth.errors import InfrastructureError
from dreambooth.sampling.batches import Batches, FittingBatches, FixedBatches
from dreambooth.sampling.decoding import Developing, Drawn
from dreambooth.sampling.settings import PictureRequest, SamplingSettings
from dreambooth.sampling.studio import draw

SETTINGS = SamplingSettings(None, 2, 1.0)


class ToyMachine:
    """Draws a picture of one pixel, its seed; room for `room` of them at once.

    Attributes:
        log: What was asked of it, in order.
    """

    def __init__(self, batches: Batches, room: int = 1000) -> None:
        self.sampler = self
        self.log: list[str] = []
        self._batches = batches
        self.room = room

    def batches(self, settings: SamplingSettings) -> Batches:
        return self._batches

    def release(self) -> None:
        self.log.append("release")

    def start(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: SamplingSettings
    ) -> Developing:
        self.log.append(f"start {len(seeds)}")
        if len(seeds) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return _Noted(self.log, torch.tensor(seeds, dtype=torch.uint8).view(-1, 1, 1, 1))


class _Noted(Developing):
    def __init__(self, log: list[str], pictures: torch.Tensor) -> None:
        super().__init__(pictures, None)
        self._log = log

    def take(self) -> Drawn:
        self._log.append("take")
        return super().take()


def requests(count: int) -> list[PictureRequest]:
    return [PictureRequest(index, 0, "a dog", seed=index) for index in range(count)]


def drawn(machine: ToyMachine, count: int) -> list[int]:
    """The seeds of the pictures that came, in order."""
    return [
        int(seed)
        for part in draw(machine, requests(count), SETTINGS)
        for seed in part.pictures.flatten()
    ]


def test_all_pictures_come_once_and_in_order() -> None:
    assert drawn(ToyMachine(FittingBatches(16)), 37) == list(range(37))
    assert drawn(ToyMachine(FixedBatches(8)), 19) == list(range(19))
    assert drawn(ToyMachine(FixedBatches(8)), 0) == []


def test_what_fills_the_last_batch_up_is_thrown_away() -> None:
    machine = ToyMachine(FixedBatches(8))
    parts = [len(part.pictures) for part in draw(machine, requests(11), SETTINGS)]
    assert parts == [8, 3]
    assert [entry for entry in machine.log if entry != "take"] == ["start 8", "start 8"]


def test_five_samples_do_not_cost_a_batch_of_sixteen() -> None:
    machine = ToyMachine(FittingBatches(16))
    drawn(machine, 5)
    assert machine.log == ["start 5", "take"]


def test_the_next_batch_begins_before_the_last_one_is_waited_for() -> None:
    machine = ToyMachine(FittingBatches(4))
    drawn(machine, 12)
    assert machine.log == ["start 4", "start 4", "take", "start 4", "take", "take"]


def test_too_little_memory_loses_no_picture_and_draws_none_twice() -> None:
    machine = ToyMachine(FittingBatches(16), room=5)
    assert drawn(machine, 32) == list(range(32))
    assert machine.log[:5] == ["start 16", "release", "start 8", "release", "start 4"]
    assert machine.log.count("release") == 2
    assert machine.log.count("take") == 8


def test_memory_that_runs_out_on_the_way_delivers_first_what_was_drawn() -> None:
    machine = ToyMachine(FittingBatches(8))
    parts = draw(machine, requests(24), SETTINGS)
    seeds = list(next(parts).pictures.flatten())
    # Another program takes memory.
    machine.room = 3
    for part in parts:
        seeds += list(part.pictures.flatten())
    assert seeds == list(range(24))
    second = machine.log.index("release")
    # The second batch was on its way by then; it is taken before anything is given back.
    assert machine.log[:second] == ["start 8", "start 8", "take", "start 8", "take"]


def test_a_gpu_too_small_for_one_picture_is_named_with_a_remedy() -> None:
    machine = ToyMachine(FittingBatches(4), room=0)
    with pytest.raises(InfrastructureError, match="one picture") as raised:
        drawn(machine, 3)
    assert raised.value.reason == "OutOfMemory"
    assert raised.value.field == "spec.cluster.pool" and raised.value.remedy
