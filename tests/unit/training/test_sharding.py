"""Which worker updates what."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dreambooth.training.sharding import PORTIONS, Shards

SIZES = some.lists(some.integers(1, 1000), min_size=1, max_size=60)


@given(SIZES, some.integers(2, 8))
def test_every_parameter_has_one_owner_and_all_workers_agree(
    sizes: list[int], workers: int
) -> None:
    shards = [Shards.of(sizes, rank, workers) for rank in range(workers)]
    assert len({(each.owners, each.portions) for each in shards}) == 1
    places = [place for each in shards for place in each.own]
    assert sorted(places) == list(range(len(sizes)))


@given(SIZES, some.integers(2, 8))
def test_nobody_has_more_than_the_largest_above_another(sizes: list[int], workers: int) -> None:
    loads = [
        sum(sizes[place] for place in Shards.of(sizes, r, workers).own) for r in range(workers)
    ]
    assert max(loads) - min(loads) <= max(sizes)


@given(SIZES, some.integers(2, 8))
def test_portions_are_runs_that_cover_all_of_a_workers_own(sizes: list[int], workers: int) -> None:
    for rank in range(workers):
        shards = Shards.of(sizes, rank, workers)
        assert len(shards.ends) == shards.portions[-1] + 1 <= PORTIONS
        assert shards.ends == sorted(shards.ends)
        assert shards.ends[-1] == len(shards.own)
        assert list(shards.portions) == sorted(shards.portions)
        first = [place for place in shards.own if shards.portions[place] == 0]
        assert shards.own[: shards.ends[0]] == first


def test_neighbours_of_one_size_go_to_workers_in_turn() -> None:
    shards = Shards.of([4] * 8, 1, 2)
    assert shards.owners == (0, 1) * 4 and shards.own == [1, 3, 5, 7]


@pytest.mark.parametrize("sizes", [[1], [1, 1]])
def test_a_worker_may_have_nothing_to_update(sizes: list[int]) -> None:
    assert Shards.of(sizes, 3, 4).own == []


def test_without_sharing_everything_is_updated_at_once() -> None:
    assert Shards.whole(3).own == [0, 1, 2] and Shards.whole(3).ends == [3]
