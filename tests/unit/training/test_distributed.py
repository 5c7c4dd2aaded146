"""Sharing a step between workers."""

from pathlib import Path

from dreambooth.training.distributed import Alone, current_world
from tests.unit.training.pair import share
from tests.unit.training.side_by_side import side_by_side


def test_two_workers_share_the_items_and_average_gradients_and_loss(tmp_path: Path) -> None:
    told = side_by_side(share, 2, tmp_path / "store", seconds=120)
    assert [each["rank"] for each in told] == [0, 1]
    assert [each["share"] for each in told] == [[0, 1, 2], [3, 4, 5]]
    for each in told:
        assert each["size"] == 2
        assert each["loss"] == 1.5
        assert each["votes"] == [True, False]
        assert each["gradients"] == [[1.5, 3.0], [[15.0]]]


def test_without_a_process_group_a_worker_is_alone_and_has_everything() -> None:
    world = current_world()
    assert isinstance(world, Alone)
    assert (world.rank, world.size) == (0, 1)
    assert world.share([1, 2, 3]) == [1, 2, 3]
    assert world.agree(True) and not world.agree(False)
