"""Health, metrics, logs, KubeRay's version and the handlers: what stands around the reconciler."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import aiohttp
import kopf
import pytest
from prometheus_client import generate_latest

from dreambooth_operator.handlers import Backoffs, registry, settings
from dreambooth_operator.health import LONGEST_LAG, probes
from dreambooth_operator.job import parse_job
from dreambooth_operator.kube.errors import (
    Forbidden,
    Invalid,
    KindNotServed,
    KubeError,
    Unavailable,
)
from dreambooth_operator.kube.kinds import Object
from dreambooth_operator.kuberay import KubeRayCheck
from dreambooth_operator.logs import JsonFormatter, about
from dreambooth_operator.metrics import Metrics
from dreambooth_operator.names import JOB_LABEL
from dreambooth_operator.planner.observed import KubeRay
from dreambooth_operator.queue import WorkQueue
from dreambooth_operator.watch_health import WatchHealth
from tests.unit.operator.builders import World, a_job


def test_a_watch_that_tells_everything_is_healthy_however_quiet_it_is() -> None:
    health = WatchHealth()
    health.hear("team/rex", "5")
    assert health.check({"team/rex": "5"}, now=0) == set()
    assert health.check({"team/rex": "5"}, now=10_000) == set()
    assert health.lag(now=10_000) == 0


def test_a_change_that_is_not_heard_of_is_found_and_makes_the_watch_unhealthy() -> None:
    health = WatchHealth()
    health.hear("team/rex", "5")
    assert health.check({"team/rex": "6"}, now=60) == {"team/rex"}
    assert health.lag(now=61) == 0
    assert health.check({"team/rex": "6", "team/max": "7"}, now=120) == {"team/rex", "team/max"}
    assert health.lag(now=180) == 120


def test_a_watch_that_catches_up_is_healthy_again() -> None:
    health = WatchHealth()
    for now in (0, 60):
        health.check({"team/rex": "6"}, now=now)
    assert health.lag(now=90) > 0
    health.hear("team/rex", "9")
    assert health.check({"team/rex": "9"}, now=120) == set()
    assert health.lag(now=500) == 0


def test_a_job_that_changes_all_the_time_does_not_look_like_a_dead_watch() -> None:
    health = WatchHealth()
    for moment in range(0, 600, 60):
        health.check({"team/rex": str(moment + 5)}, now=moment)
        health.hear("team/rex", str(moment + 5))
    assert health.lag(now=1000) == 0


def test_a_job_that_is_gone_is_not_missed() -> None:
    health = WatchHealth()
    health.check({"team/rex": "6"}, now=0)
    health.lose("team/rex")
    assert health.check({}, now=60) == set()
    assert health.heard == {}


def scrape(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_jobs_are_counted_by_phase_and_stage() -> None:
    metrics, world = Metrics(), World.of(a_job())
    for step in range(2):
        if step:
            world.runs()
        metrics.seen(parse_job(world.settle().job))
    found = scrape(metrics)
    assert found['dreambooth_jobs{phase="Provisioning"}'] == 0
    assert found['dreambooth_jobs{phase="Running"}'] == 1
    assert found['dreambooth_jobs_running{stage="photos"}'] == 1
    assert metrics.busy == 1
    metrics.gone("team/rex")
    assert scrape(metrics)['dreambooth_jobs{phase="Running"}'] == 0
    assert metrics.busy == 0


def test_gpu_seconds_and_ends_are_counted_once_and_not_again_after_a_restart() -> None:
    metrics, world = Metrics(), World.of(a_job()).runs()
    metrics.seen(parse_job(world.job))
    world.passes(20).driver_tells(gpuSeconds=20.0).ray("Failed", "FAILED", reason="AppFailed")
    for _ in range(2):
        metrics.seen(parse_job(world.settle().job))
    found = scrape(metrics)
    assert found["dreambooth_gpu_seconds_total"] == 20.0
    ended = 'dreambooth_attempts_ended_total{failure="infrastructure",reason="DriverFailed"}'
    assert found[ended] == 1

    restarted = Metrics()
    restarted.seen(parse_job(world.job))
    assert scrape(restarted)["dreambooth_gpu_seconds_total"] == 0


def test_probes_answer_and_fail_when_the_watch_has_missed_too_much() -> None:
    lag = [0.0]

    async def course() -> list[tuple[int, str]]:
        answers = []
        async with probes(0, Metrics(), lambda: lag[0]) as port, aiohttp.ClientSession() as session:
            for path, seconds in (
                ("healthz", 0.0),
                ("readyz", 0.0),
                ("healthz", LONGEST_LAG + 1),
                ("metrics", 5.0),
            ):
                lag[0] = seconds
                async with session.get(f"http://127.0.0.1:{port}/{path}") as response:
                    answers.append((response.status, await response.text()))
        return answers

    alive, ready, dead, metrics = asyncio.run(course())
    assert (alive[0], ready[0], dead[0], metrics[0]) == (200, 200, 503, 200)
    assert "have not been heard of for 181 s" in dead[1]
    assert "dreambooth_watch_lag_seconds 5.0" in metrics[1]


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("dreambooth_operator.test")
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def test_a_log_line_is_json_with_the_job_it_is_about(lines: io.StringIO) -> None:
    logger = logging.getLogger("dreambooth_operator.test")
    with about("team/rex"):
        try:
            raise ValueError('a "quoted"\nmessage')
        except ValueError:
            logger.exception("it failed")
    logger.error("later")
    first, second = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (first["job"], first["severity"], first["message"]) == ("team/rex", "error", "it failed")
    assert 'a "quoted"' in first["exception"]
    assert "job" not in second


class Answer:
    """An API that answers a check in one way."""

    def __init__(self, error: KubeError | None) -> None:
        self.error = error
        self.asked: list[Object] = []

    async def check(self, obj: Object) -> None:
        self.asked.append(obj)
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, KubeRay.READY),
        (KindNotServed("404 page not found"), KubeRay.MISSING),
        (Invalid('unknown field "spec.preRunningDeadlineSeconds"'), KubeRay.TOO_OLD),
        (Invalid("a webhook refuses it"), KubeRay.READY),
        (Forbidden("a policy refuses it"), KubeRay.READY),
        (Unavailable("away"), KubeRay.READY),
    ],
)
def test_kuberays_version_is_known_by_what_it_takes(
    error: KubeError | None, state: KubeRay
) -> None:
    api: Any = Answer(error)
    assert asyncio.run(KubeRayCheck().ask(api, "system")) is state
    assert api.asked[0]["kind"] == "RayJob"


def test_an_api_that_is_away_does_not_change_what_is_known() -> None:
    api: Any = Answer(Unavailable("away"))
    assert asyncio.run(KubeRayCheck(KubeRay.MISSING).ask(api, "system")) is KubeRay.MISSING


def call_handlers(queue: WorkQueue, health: WatchHealth, *, type: str, meta: Object) -> None:
    """Call every handler that watches, as kopf does."""

    async def course() -> None:
        for handler in registry(queue, health)._watching.get_all_handlers():
            fn: Any = handler.fn
            await fn(type=type, meta=meta, body={}, name="x")

    asyncio.run(course())


def test_events_become_keys_and_nothing_else() -> None:
    queue, health = WorkQueue(), WatchHealth()
    meta = {"namespace": "team", "name": "rex", "resourceVersion": "7"}
    call_handlers(queue, health, type="ADDED", meta=meta)
    assert list(queue.waiting) == ["team/rex"]
    assert health.heard == {"team/rex": 7}
    call_handlers(queue, health, type="DELETED", meta=meta)
    assert health.heard == {}

    child = {"namespace": "team", "name": "rex-1", "labels": {JOB_LABEL: "rex"}}
    queue = WorkQueue()
    call_handlers(queue, WatchHealth(), type="MODIFIED", meta=child)
    assert "team/rex" in queue.waiting


def test_kopf_only_watches() -> None:
    handlers = registry(WorkQueue(), WatchHealth())
    watched = {str(handler.id) for handler in handlers._watching.get_all_handlers()}
    assert watched == {"job", "rayjobs", "configmaps"}
    for others in (handlers._spawning, handlers._changing, handlers._indexing):
        assert list(others.get_all_handlers()) == []


def test_nothing_of_kopf_waits_for_ever_or_writes() -> None:
    chosen = settings()
    assert chosen.watching.server_timeout
    assert chosen.watching.client_timeout
    assert chosen.networking.request_timeout
    assert chosen.posting.enabled is False
    assert chosen.peering.standalone is True
    assert isinstance(chosen, kopf.OperatorSettings)


def test_the_api_is_asked_again_for_ever_and_ever_more_seldom() -> None:
    backoffs = Backoffs()
    for _ in range(2):
        waits = [wait for wait, _ in zip(backoffs, range(100), strict=False)]
        assert waits[0] <= 1
        assert all(15 <= wait <= 30 for wait in waits[10:])
