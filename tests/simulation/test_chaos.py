"""Watches that fail, reads that are old, two operators, deaths: a job still comes to its end."""

import itertools
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.chaos import KINDS_OF_CHAOS, chaotic
from tests.simulation.conftest import Tell
from tests.simulation.scenarios import SCENARIOS, Scenario

SEEDS = range(3)
CASES_A_BATCH = 4


def wrong_in(case: tuple[int, Scenario, int]) -> list[str]:
    kind, scenario, seed = case
    chaos = KINDS_OF_CHAOS[kind]
    return [
        f"{scenario}, {chaos.__name__}, seed {seed}: {what}"
        for what in chaotic(scenario, chaos, seed)
    ]


@pytest.mark.parametrize(
    "kind", range(len(KINDS_OF_CHAOS)), ids=lambda kind: KINDS_OF_CHAOS[kind].__name__
)
def test_chaos_leads_to_the_same_end(kind: int, pool: ProcessPoolExecutor, tell: Tell) -> None:
    cases = list(itertools.product([kind], SCENARIOS, SEEDS))
    wrong = list(itertools.chain(*pool.map(wrong_in, cases, chunksize=CASES_A_BATCH)))
    assert not wrong, "\n".join(wrong[:20])
    tell(f"{len(cases)} cases: {KINDS_OF_CHAOS[kind].__doc__}")
