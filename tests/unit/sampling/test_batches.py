"""How many pictures are computed together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth.errors import InfrastructureError
from dreambooth.sampling.batches import (
    DECODING_SHARE,
    MEMORY_SHARE,
    Batches,
    Capacity,
    FittingBatches,
    FixedBatches,
    MemoryUse,
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
    ("count", "sizes"),
    [(5, [5]), (16, [16]), (17, [9, 8]), (200, [16] * 5 + [15] * 8), (1, [1])],
)
def test_on_a_gpu_batches_are_equal_and_nothing_is_thrown_away(
    count: int, sizes: list[int]
) -> None:
    assert cut(FittingBatches(16), count) == [(size, size) for size in sizes]


@given(count=st.integers(1, 2000), largest=st.integers(1, 64))
def test_a_gpu_sees_two_sizes_at_most_in_as_few_batches_as_can_be(count: int, largest: int) -> None:
    sizes = [pictures for pictures, _ in cut(FittingBatches(largest), count)]
    assert sum(sizes) == count
    assert len(sizes) == -(-count // largest)
    assert max(sizes) <= largest and max(sizes) - min(sizes) <= 1


def test_too_little_memory_halves_what_was_too_much_down_to_one_picture() -> None:
    batches = FittingBatches(16)
    # Sixteen were allowed, but these were the last ten.
    batches.shrink(10)
    assert batches.largest == 5
    batches.shrink(5)
    batches.shrink(2)
    assert batches.largest == 1
    with pytest.raises(InfrastructureError, match="one picture") as raised:
        batches.shrink(1)
    assert raised.value.reason == "OutOfMemory" and raised.value.remedy


def test_a_cpu_cannot_do_with_less() -> None:
    with pytest.raises(InfrastructureError, match="8 pictures"):
        FixedBatches(8).shrink(8)


def test_two_measurements_tell_what_is_taken_once_and_what_by_every_row() -> None:
    use = MemoryUse.between((2, 700), (4, 1100))
    assert use == MemoryUse(fixed=300, each=200)
    assert use.rows_in(1500) == 6
    # Something always has to be tried.
    assert use.rows_in(10) == 1


def test_a_measurement_that_makes_no_sense_is_no_division_by_zero() -> None:
    assert MemoryUse.between((2, 500), (4, 500)).rows_in(1000) >= 1


def test_a_large_gpu_is_filled_and_no_more() -> None:
    unet, decoder = MemoryUse(GIB, 0.2 * GIB), MemoryUse(GIB, 0.5 * GIB)
    assert capacity(78 * GIB, unet, decoder, 2, SD) == Capacity(batch=16, decoded=8)
    # Without guidance a picture is half the work.
    assert capacity(78 * GIB, unet, decoder, 1, SD).batch == 32
    assert capacity(78 * GIB, unet, decoder, 2, XL).batch == 4


@given(
    free=st.floats(0.5 * GIB, 80 * GIB),
    row=st.floats(0.01 * GIB, 4 * GIB),
    picture=st.floats(0.01 * GIB, 4 * GIB),
    rows=st.sampled_from([1, 2]),
)
def test_what_is_planned_fits_unless_it_is_a_single_picture(
    free: float, row: float, picture: float, rows: int
) -> None:
    unet, decoder = MemoryUse(0, row), MemoryUse(0, picture)
    planned = capacity(int(free), unet, decoder, rows, SD)
    assert planned.batch >= 1 and planned.decoded >= 1
    assert planned.batch & (planned.batch - 1) == 0
    if planned.decoded > 1:
        assert planned.decoded * picture <= DECODING_SHARE * MEMORY_SHARE * free
    if planned.batch > 1:
        taken = planned.batch * rows * row + planned.decoded * picture
        assert taken <= MEMORY_SHARE * free * (1 + 1e-9)
