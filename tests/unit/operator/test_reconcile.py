"""One look: observe, plan, carry out, and status last."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from dreambooth_operator.config import Config
from dreambooth_operator.job import Job
from dreambooth_operator.kube.errors import Conflict, Forbidden, KubeError, Unavailable
from dreambooth_operator.kube.kinds import CLAIM, JOB, RAY_JOB, Object, Ref, ref_of
from dreambooth_operator.reconcile import Reconciler
from tests.simulation.fake_api import Call, FakeApi
from tests.simulation.server import ApiServer
from tests.unit.operator.builders import a_config, a_job

NAMESPACE = "default"


class Line:
    """Notes every call; one that `refuses` names is refused, before it is carried out."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.refuses: dict[str, KubeError] = {}

    async def carry(self, call: Call, perform: Callable[[], Any]) -> Any:
        self.calls.append(call)
        for words, error in self.refuses.items():
            if str(call).startswith(words):
                raise error
        return perform()

    def writes(self) -> list[str]:
        return [f"{call.verb} {call.kind.name}" for call in self.calls if call.is_write]


class Seen:
    """Remembers what the reconciler tells."""

    busy = 3

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.left: list[str] = []

    def seen(self, job: Job) -> None:
        self.jobs.append(job.key)

    def gone(self, key: str) -> None:
        self.left.append(key)


class Bench:
    """A reconciler on a server in memory."""

    def __init__(self, config: Config | None = None) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.server = ApiServer(now=lambda: self.now)
        self.line, self.seen = Line(), Seen()
        api = FakeApi(self.server, self.line)
        self.reconciler = Reconciler(api, config or a_config(), self.seen, clock=lambda: self.now)

    def put(self, obj: Object) -> None:
        obj["metadata"]["namespace"] = NAMESPACE
        for name in ("uid", "resourceVersion", "generation"):
            obj["metadata"].pop(name, None)
        self.server.apply(ref_of(obj), obj, "someone")

    def ready(self) -> "Bench":
        """With the default volume and a job."""
        spec = {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
        self.put(CLAIM.new(NAMESPACE, "volume", spec=spec))
        self.put(a_job().build())
        return self

    def look(self) -> float | None:
        return asyncio.run(self.reconciler.look(f"{NAMESPACE}/rex")).after

    @property
    def status(self) -> Object:
        found: Object = self.server.get(Ref(JOB, NAMESPACE, "rex")).get("status", {})
        return found

    def ray_jobs(self) -> list[Object]:
        return self.server.get_all(RAY_JOB, NAMESPACE, {})


def test_a_job_that_does_not_exist_is_forgotten() -> None:
    bench = Bench()
    assert bench.look() is None
    assert bench.seen.left == ["default/rex"]
    assert bench.line.writes() == []


def test_status_is_written_last_and_before_the_ray_job_of_its_try() -> None:
    bench = Bench().ready()
    assert bench.look() == 1.0
    assert bench.line.writes()[0] == "apply_status DreamBoothJob"
    assert bench.ray_jobs() == []

    bench.line.calls.clear()
    assert bench.look() == 30.0
    assert bench.line.writes()[-1] == "apply RayJob"
    assert [obj["metadata"]["name"] for obj in bench.ray_jobs()] == [bench.status["rayJob"]]


def test_a_look_at_which_nothing_is_to_do_writes_nothing() -> None:
    bench = Bench().ready()
    bench.look()
    bench.look()
    bench.line.calls.clear()
    bench.look()
    assert bench.line.writes() == []


def test_what_the_api_refuses_is_in_status_in_its_words_and_tried_again() -> None:
    bench = Bench().ready()
    bench.look()
    bench.line.refuses["apply RayJob"] = Forbidden("exceeded quota: count/rayjobs=0", status=403)
    for _ in range(3):
        with pytest.raises(Forbidden):
            bench.look()
    (ready,) = [c for c in bench.status["conditions"] if c["type"] == "ClusterReady"]
    assert ready["reason"] == "ChildRefused"
    assert "exceeded quota" in ready["message"]
    # Written and told once, however often it is refused.
    writes = bench.line.writes()
    assert writes.count("apply_status DreamBoothJob") == 2
    assert [call.name for call in bench.line.calls if call.verb == "event"] == [
        "AttemptStarted",
        "ChildRefused",
    ]

    bench.line.refuses.clear()
    bench.look()
    assert bench.look() is not None
    assert bench.status["phase"] == "Provisioning"
    assert len(bench.ray_jobs()) == 1


def test_an_api_that_is_away_in_between_leaves_nothing_half_known() -> None:
    bench = Bench().ready()
    bench.look()
    bench.line.refuses["apply Role"] = Unavailable("away")
    with pytest.raises(Unavailable):
        bench.look()
    assert bench.ray_jobs() == []
    bench.line.refuses.clear()
    bench.look()
    assert len(bench.ray_jobs()) == 1


def test_status_is_not_written_upon_a_job_that_changed_meanwhile() -> None:
    bench = Bench().ready()

    original = bench.line.carry

    async def edit_first(call: Call, perform: Callable[[], Any]) -> Any:
        if call.verb == "apply_status":
            job = bench.server.get(Ref(JOB, NAMESPACE, "rex"))
            edited = JOB.new(NAMESPACE, "rex", spec={**job["spec"], "suspend": True})
            bench.server.apply(Ref(JOB, NAMESPACE, "rex"), edited, "someone")
        return await original(call, perform)

    bench.line.carry = edit_first  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        bench.look()
    bench.line.carry = original  # type: ignore[method-assign]
    bench.look()
    assert bench.status["phase"] == "Suspended"
    assert bench.ray_jobs() == []


def test_an_event_that_cannot_be_told_stops_nothing() -> None:
    bench = Bench().ready()
    bench.line.refuses["event"] = Forbidden("no events for you")
    bench.look()
    bench.look()
    assert len(bench.ray_jobs()) == 1


def test_kuberays_absence_is_a_condition_and_heals() -> None:
    bench = Bench().ready()
    bench.server.served.discard(RAY_JOB)
    assert bench.look() == 1.0
    assert bench.status["conditions"][0]["reason"] == "KubeRayNotFound"
    assert bench.look() == 30.0
    bench.server.served.add(RAY_JOB)
    bench.look()
    bench.look()
    assert len(bench.ray_jobs()) == 1


def test_the_time_that_an_api_asks_for_does_not_lose_the_job() -> None:
    bench = Bench().ready()
    bench.line.refuses["get DreamBoothJob"] = Unavailable("away")
    with pytest.raises(Unavailable):
        bench.look()
    assert bench.seen.left == []
