"""What simulations share: processes to run them in, and a way to tell how many they were."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

Tell = Callable[[str], None]


@pytest.fixture(scope="session")
def pool() -> Iterator[ProcessPoolExecutor]:
    """As many processes as there are processors; none of them inherits what tests have running.

    What they run counts as covered by the lives that the tests' own process plays: tracing the
    thousands of others would take as long as playing them.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=context, initializer=sys.settrace, initargs=(None,)
    ) as executor:
        yield executor


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Says something to whoever runs the tests, also when they pass."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}", end="")

    return say
