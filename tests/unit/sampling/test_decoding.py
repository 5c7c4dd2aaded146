"""From latents to pictures."""

from hypothesis import given
from hypothesis import strategies as st

from dreambooth.sampling.decoding import starts


def test_parts_are_of_one_size() -> None:
    assert starts(16, 8) == [0, 8]
    assert starts(20, 8) == [0, 8, 12]
    assert starts(5, 8) == [0]


@given(count=st.integers(1, 200), together=st.integers(1, 16))
def test_every_picture_is_decoded(count: int, together: int) -> None:
    begins = starts(count, together)
    covered = {i for start in begins for i in range(start, min(count, start + together))}
    assert covered == set(range(count))
    assert len(begins) == -(-count // together)
