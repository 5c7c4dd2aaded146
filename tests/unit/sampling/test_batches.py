"""How many pictures are computed together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth.errors import InfrastructureError
from dreambooth.sampling.batches import (
    DECODING_BYTES,
    DECODING_SHARE,
    DENOISING_BYTES,
    MOST_DECODED,
    Batches,
    Capacity,
    FittingBatches,
    FixedBatches,
    best_size,
    capacity,
)

GIB = 2**30
SD, XL = 64 * 64, 128 * 128


def cut(batches: Batches, count: int) -> list[tuple[int, int]]:
    """Pictures and computed rows of all batches."""
    cuts = []
    while count:
        pictures = batches.next(count)
        cuts.append((pictures, batches.rows(pictures)))
        count -= pictures
    return cuts


def test_on_a_cpu_every_batch_is_computed_alike() -> None:
    assert cut(FixedBatches(8), 19) == [(8, 8), (8, 8), (3, 8)]


@pytest.mark.parametrize(
    ("count", "size"), [(1, 1), (5, 5), (24, 24), (25, 13), (64, 16), (199, 20), (200, 20)]
)
def test_on_a_gpu_batches_are_of_one_size_that_wastes_next_to_nothing(
    count: int, size: int
) -> None:
    cuts = cut(FittingBatches(24), count)
    assert {rows for _, rows in cuts} == {size}
    assert sum(pictures for pictures, _ in cuts) == count
    assert len(cuts) * size - count <= 1


@given(count=st.integers(1, 2000), largest=st.integers(1, 64))
def test_batches_are_neither_too_large_nor_needlessly_small(count: int, largest: int) -> None:
    size = best_size(count, largest)
    assert 1 <= size <= largest
    assert 2 * size >= min(largest, count)
    computed, least = size * -(-count // size), largest * -(-count // largest)
    assert count <= computed <= least


@pytest.mark.parametrize(
    ("count", "known", "size"),
    [
        (4, {5, 20}, 5),
        (5, {20}, 5),
        (8, {20}, 20),
        (200, {5}, 20),
        (195, {20}, 20),
        (199, {13, 24}, 13),
        (4, {30}, 4),
    ],
)
def test_a_size_that_is_known_is_taken_unless_it_wastes_more_than_a_new_one_costs(
    count: int, known: set[int], size: int
) -> None:
    assert best_size(count, 24, known) == size


def test_later_lists_know_the_sizes_of_earlier_ones() -> None:
    known: set[int] = set()
    assert cut(FittingBatches(24, known), 5) == [(5, 5)]
    assert cut(FittingBatches(24, known), 4) == [(4, 5)]


def test_too_little_memory_halves_what_was_too_much_down_to_one_picture() -> None:
    batches = FittingBatches(24)
    tried = []
    for _ in range(4):
        batches.next(20)
        tried.append(batches.rows(20))
        if tried[-1] > 1:
            batches.shrink(20)
    assert tried == [20, 10, 5, 2]
    batches.next(1)
    with pytest.raises(InfrastructureError, match="one picture") as raised:
        batches.shrink(1)
    assert raised.value.reason == "OutOfMemory" and raised.value.remedy


def test_a_cpu_cannot_do_with_less() -> None:
    with pytest.raises(InfrastructureError, match="8 pictures"):
        FixedBatches(8).shrink(8)


def test_a_large_gpu_is_filled_and_no_more() -> None:
    assert capacity(78 * GIB, 2, SD, 512**2) == Capacity(batch=24, decoded=8)
    # Without guidance a picture is half the work.
    assert capacity(78 * GIB, 1, SD, 512**2).batch == 48
    assert capacity(78 * GIB, 2, XL, 1024**2) == Capacity(batch=6, decoded=3)


def test_a_small_gpu_begins_with_less_and_always_with_one() -> None:
    assert capacity(8 * GIB, 2, SD, 512**2) == Capacity(batch=24, decoded=1)
    assert capacity(4 * GIB, 2, SD, 512**2).batch == 11
    assert capacity(0, 2, XL, 1024**2) == Capacity(batch=1, decoded=1)


@given(free=st.integers(0, 80 * GIB), rows=st.sampled_from([1, 2]), side=st.sampled_from([64, 128]))
def test_what_is_begun_with_should_fit_unless_it_is_a_single_picture(
    free: int, rows: int, side: int
) -> None:
    fits = capacity(free, rows, side**2, (8 * side) ** 2)
    decoding = fits.decoded * DECODING_BYTES * (8 * side) ** 2
    assert 1 <= fits.decoded <= MOST_DECODED and fits.batch >= 1
    if fits.decoded > 1:
        assert decoding <= DECODING_SHARE * free
    if fits.batch > 1:
        assert fits.batch * rows * side**2 * DENOISING_BYTES + decoding <= free
