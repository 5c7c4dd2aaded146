"""Whatever call goes wrong in whatever way, a job comes to the same end as if nothing had.

Each case is a whole life of a job in which one call of the operator fails: it is refused, lost on
its way there or back, or the operator dies before or after it and starts anew with no memory.
"""

import itertools
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.faults import Fault
from tests.simulation.runs import disturbed, undisturbed
from tests.simulation.scenarios import SCENARIOS, SUCCESS, Scenario

Case = tuple[Scenario, Fault, int, bool]
CALLS_A_BATCH = 16


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """As many processes as there are processors; none of them inherits what tests have running."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as executor:
        yield executor


def wrong_in(case: Case) -> list[str]:
    scenario, fault, at, reads = case
    kind = "read" if reads else "write"
    return [
        f"{scenario}, {fault.value} at {kind} {at}: {what}"
        for what in disturbed(scenario, fault, at, reads=reads)
    ]


def report(name: str, cases: int, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n  {cases} cases: {name}", end="")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_nothing_goes_wrong_when_nothing_goes_wrong(scenario: Scenario) -> None:
    end = undisturbed(scenario)
    assert end.phase == scenario.phase
    assert list(end.submissions.values()) == [1] * scenario.tries
    assert not end.orphans
    assert not end.restless


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_any_fault_at_any_write_leads_to_the_same_end(
    scenario: Scenario, pool: ProcessPoolExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    writes = range(1, len(undisturbed(scenario).writes) + 1)
    cases = [(scenario, fault, at, False) for fault, at in itertools.product(Fault, writes)]
    wrong = list(itertools.chain(*pool.map(wrong_in, cases, chunksize=CALLS_A_BATCH)))
    assert not wrong, "\n".join(wrong[:20])
    report(f"each fault at each write, {scenario}", len(cases), capsys)


def test_any_fault_at_any_read_leads_to_the_same_end(
    pool: ProcessPoolExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    reads = range(1, undisturbed(SUCCESS).reads + 1)
    faults = (Fault.DIE_BEFORE, Fault.TIMEOUT, Fault.GONE, Fault.SERVER_ERROR)
    cases = [(SUCCESS, fault, at, True) for fault, at in itertools.product(faults, reads)]
    wrong = list(itertools.chain(*pool.map(wrong_in, cases, chunksize=CALLS_A_BATCH)))
    assert not wrong, "\n".join(wrong[:20])
    report(f"each fault at each read, {SUCCESS}", len(cases), capsys)
