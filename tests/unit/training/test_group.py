"""Two workers of one training, of which one fails."""

from pathlib import Path

import pytest

from tests.unit.training.conftest import make_plan, pictures
from tests.unit.training.pair import train_on_a_full_disk
from tests.unit.training.side_by_side import side_by_side


@pytest.mark.timeout(240)
def test_when_the_first_worker_fails_the_other_does_not_wait_for_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    plan = make_plan(tmp_path, tiny_model, pictures(tmp_path / "p", 2), pictures(tmp_path / "c", 2))
    told = side_by_side(train_on_a_full_disk, 2, tmp_path / "store", plan, seconds=200)
    assert told == [["the disk is full."], []]
