"""Whatever call goes wrong in whatever way, a job comes to the same end as if nothing had.

Each case is a whole life of a job in which one call of the operator fails: it is refused, lost on
its way there or back, or the operator dies before or after it and starts anew with no memory.
"""

import itertools
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.conftest import Tell
from tests.simulation.faults import Fault
from tests.simulation.runs import disturbed, undisturbed
from tests.simulation.scenarios import SCENARIOS, SUCCESS, Scenario

Case = tuple[Scenario, Fault, int, bool]
CALLS_A_BATCH = 16


def wrong_in(case: Case) -> list[str]:
    scenario, fault, at, reads = case
    kind = "read" if reads else "write"
    return [
        f"{scenario}, {fault.value} at {kind} {at}: {what}"
        for what in disturbed(scenario, fault, at, reads=reads)
    ]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_nothing_goes_wrong_when_nothing_goes_wrong(scenario: Scenario) -> None:
    end = undisturbed(scenario)
    assert end.phase == scenario.phase
    assert list(end.submissions.values()) == [1] * scenario.tries
    assert not end.orphans
    assert not end.restless


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_any_fault_at_any_write_leads_to_the_same_end(
    scenario: Scenario, pool: ProcessPoolExecutor, tell: Tell
) -> None:
    writes = range(1, len(undisturbed(scenario).writes) + 1)
    cases = [(scenario, fault, at, False) for fault, at in itertools.product(Fault, writes)]
    wrong = list(itertools.chain(*pool.map(wrong_in, cases, chunksize=CALLS_A_BATCH)))
    assert not wrong, "\n".join(wrong[:20])
    tell(f"{len(cases)} cases: each fault at each write, {scenario}")


def test_an_error_at_any_read_leads_to_the_same_end(pool: ProcessPoolExecutor, tell: Tell) -> None:
    reads = range(1, undisturbed(SUCCESS).reads + 1)
    cases = [(SUCCESS, Fault.SERVER_ERROR, at, True) for at in reads]
    wrong = list(itertools.chain(*pool.map(wrong_in, cases, chunksize=CALLS_A_BATCH)))
    assert not wrong, "\n".join(wrong[:20])
    tell(f"{len(cases)} cases: an error at each read, {SUCCESS}")
