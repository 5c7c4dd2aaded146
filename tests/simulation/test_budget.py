"""What a job costs the API: writes of an undisturbed one, and of one that is over."""

import asyncio
from collections import Counter
from dataclasses import replace

from tests.simulation.conftest import Tell
from tests.simulation.faults import FaultyLine
from tests.simulation.machines import Life
from tests.simulation.runs import live
from tests.simulation.scenarios import SUCCESS, apply
from tests.simulation.world import World

MOST_WRITES = 80
TEN_MINUTES = replace(SUCCESS, lives=(Life(600),))


def test_a_job_of_ten_minutes_takes_at_most_eighty_writes(tell: Tell) -> None:
    line = FaultyLine()
    end = live(TEN_MINUTES, line, lambda world: None)
    assert end.phase == "Succeeded"
    verbs = Counter(f"{call.verb} {call.kind.name}" for call in line.calls if call.is_write)
    kinds = ", ".join(f"{count} × {what}" for what, count in verbs.most_common())
    tell(f"{len(end.writes)} writes in an undisturbed job of ten minutes: {kinds}")
    assert len(end.writes) <= MOST_WRITES


def test_a_job_that_is_over_gets_no_write_in_a_day(tell: Tell) -> None:
    line = FaultyLine()
    written: list[int] = []

    async def people(world: World) -> None:
        await apply(world)
        await world.until_rest()
        written.append(sum(call.is_write for call in line.calls))
        await asyncio.sleep(24 * 3600)
        written.append(sum(call.is_write for call in line.calls))

    assert live(replace(SUCCESS, people=people), line, lambda world: None).phase == "Succeeded"
    before, after = written
    assert after == before > 0
