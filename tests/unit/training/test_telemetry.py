"""How workers tell the driver where they are, on a real Ray."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import ray

from dreambooth import spans
from dreambooth.spans import Activity
from dreambooth.training.telemetry import PlanToCome, Relay, Telemetry

pytestmark = pytest.mark.usefixtures("local_ray")


class Heard:
    """What the driver's listener got, and an event for when it has `enough`."""

    def __init__(self, enough: int) -> None:
        self.rows: list[dict[str, Any]] = []
        self._enough = enough
        self.complete = threading.Event()

    def __call__(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if len(self.rows) >= self._enough:
            self.complete.set()


def test_rows_arrive_while_training_goes_on() -> None:
    heard = Heard(enough=50)
    relay = Relay(heard)
    telemetry = Telemetry(relay.actor, speaks=True)
    for number in range(50):
        telemetry.send({"number": number})
    assert heard.complete.wait(timeout=120)
    relay.close()
    assert sorted(row["number"] for row in heard.rows) == list(range(50))


def test_only_the_first_worker_speaks_and_fast_steps_are_reported_together() -> None:
    heard = Heard(enough=1)
    relay = Relay(heard)
    Telemetry(relay.actor, speaks=False).send({"step": 0, "loss": 9.0})
    telemetry = Telemetry(relay.actor, speaks=True)
    for step in range(1, 1001):
        telemetry.step(step, 0.5)
    assert heard.complete.wait(timeout=120)
    relay.close()
    assert {"step": 1, "loss": 0.5} in heard.rows
    assert {row["loss"] for row in heard.rows} == {0.5}
    assert len(heard.rows) < 500


def test_a_worker_waits_for_its_plan_and_one_that_comes_later_gets_it_at_once() -> None:
    relay = Relay(Heard(enough=1))
    coming = PlanToCome(relay.actor)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(PlanToCome(relay.actor).wait)
        assert not waiting.done() and not coming.has_come()
        relay.give({"steps": 3})
        assert waiting.result(timeout=120) == {"steps": 3}
    assert coming.wait() == {"steps": 3} and coming.has_come()
    assert PlanToCome(relay.actor).wait() == {"steps": 3}
    relay.give(None)
    assert PlanToCome(relay.actor).wait() is None
    relay.close()


def test_a_relay_that_was_lost_hears_the_plan_again() -> None:
    relay = Relay(Heard(enough=1))
    relay.give({"steps": 3})
    assert PlanToCome(relay.actor).wait() == {"steps": 3}
    ray.kill(relay.actor, no_restart=False)
    assert PlanToCome(relay.actor).wait() == {"steps": 3}
    relay.close()


def test_every_worker_tells_what_it_did_also_those_that_do_not_speak() -> None:
    heard = Heard(enough=1)
    relay = Relay(heard)
    spans.take()
    spans.note(Activity.CHECKPOINT, 1.0, 2.0)
    Telemetry(relay.actor, speaks=False).last_spans()
    assert heard.complete.wait(timeout=120)
    relay.close()
    [row] = heard.rows
    assert row["spans"][0]["spans"][0]["activity"] == "checkpoint"


def test_a_lost_relay_does_not_stop_the_driver() -> None:
    heard = Heard(enough=1)
    relay = Relay(heard)
    ray.kill(relay.actor)
    relay.close()
    assert heard.rows == []
