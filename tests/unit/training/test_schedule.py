"""What each step sees is a function of seed and step."""

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from dreambooth.training.schedule import PairSchedule, draw


@given(
    seed=st.integers(0, 2**31),
    photos=st.integers(1, 9),
    class_images=st.integers(1, 30),
    batch=st.integers(1, 4),
)
def test_every_photo_is_seen_once_before_any_is_seen_again(
    seed: int, photos: int, class_images: int, batch: int
) -> None:
    schedule = PairSchedule(seed, photos, class_images, batch)
    seen = [pair.photo for step in range(photos) for pair in schedule.step(step)]
    assert Counter(seen) == {photo: batch for photo in range(photos)}


@given(seed=st.integers(0, 2**31), step=st.integers(0, 1000))
def test_a_step_does_not_depend_on_the_steps_before_it(seed: int, step: int) -> None:
    assert PairSchedule(seed, 5, 40, 2).step(step) == PairSchedule(seed, 5, 40, 2).step(step)
    schedule = PairSchedule(seed, 5, 40, 2)
    noise = [pair.photo_seed for number in (step, step + 1) for pair in schedule.step(number)]
    assert len(set(noise)) == 4


def test_draws_repeat_for_a_seed_and_differ_between_seeds() -> None:
    one, again, other = draw(1, (4, 8, 8)), draw(1, (4, 8, 8)), draw(2, (4, 8, 8))
    assert torch.equal(one.noise, again.noise)
    assert torch.equal(one.posterior, again.posterior)
    assert not torch.equal(one.noise, one.posterior)
    assert not torch.equal(one.noise, other.noise)


@given(seed=st.integers(0, 2**31), first=st.integers(0, 10_000))
def test_the_noise_levels_of_any_few_steps_are_spread_evenly(seed: int, first: int) -> None:
    schedule = PairSchedule(seed, 5, 40, 4)
    pairs = [pair for step in range(first, first + 5) for pair in schedule.step(step)]
    for times in ([p.photo_time for p in pairs], [p.class_time for p in pairs]):
        assert all(0 <= time < 1 for time in times)
        quarters = Counter(int(4 * time) for time in times)
        assert all(4 <= quarters[quarter] <= 6 for quarter in range(4))
