"""People edit and delete what belongs to a job: it is as before, or the job goes on anew."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dreambooth_operator.kube.kinds import (
    CONFIG_MAP,
    NETWORK_POLICY,
    RAY_JOB,
    ROLE,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    Kind,
    Ref,
)
from dreambooth_operator.names import Names
from tests.simulation.faults import FaultyLine
from tests.simulation.machines import Life
from tests.simulation.runs import Outcome, live, undisturbed
from tests.simulation.scenarios import (
    SUCCESS,
    Scenario,
    apply,
    is_training,
    make_job,
    make_volume,
)
from tests.simulation.world import PERSON, World

# Long enough that the operator looks at the job again before it is over.
LONG = replace(SUCCESS, lives=(Life(200),))


def child(world: World, kind: Kind, suffix: str = "") -> Ref:
    job = world.job()
    assert job is not None
    names = Names("rex", "default", job["metadata"]["uid"])
    return Ref(kind, "default", f"{names.base}{suffix}")


def interfering(act: Callable[[World], Any]) -> Scenario:
    """A job with which someone interferes while it trains."""

    async def people(world: World) -> None:
        await apply(world)
        await world.until(lambda: is_training(world))
        act(world)
        await asyncio.sleep(1)

    return replace(LONG, people=people)


def end_of(scenario: Scenario) -> Outcome:
    return live(scenario, FaultyLine(), lambda world: None)


CHILDREN = [
    pytest.param(SERVICE_ACCOUNT, "", id="service account"),
    pytest.param(ROLE, "", id="role"),
    pytest.param(ROLE_BINDING, "", id="role binding"),
    pytest.param(NETWORK_POLICY, "", id="network policy"),
    pytest.param(CONFIG_MAP, "-job", id="job document"),
    pytest.param(CONFIG_MAP, "-progress", id="progress record"),
]


@pytest.mark.parametrize(("kind", "suffix"), CHILDREN)
def test_a_child_that_someone_deletes_is_made_again(kind: Kind, suffix: str) -> None:
    end = end_of(interfering(lambda world: world.server.delete(child(world, kind, suffix))))
    assert end.phase == "Succeeded"
    assert end.objects == undisturbed(LONG).objects
    assert end.submissions == undisturbed(LONG).submissions


EDITS = [
    pytest.param(ROLE, "", {"rules": []}, id="role without rules"),
    pytest.param(ROLE_BINDING, "", {"subjects": []}, id="role binding for nobody"),
    pytest.param(NETWORK_POLICY, "", {"spec": {"ingress": [{}]}}, id="open network policy"),
    pytest.param(CONFIG_MAP, "-job", {"data": {"job.json": "{}"}}, id="job document"),
    pytest.param(
        SERVICE_ACCOUNT, "", {"automountServiceAccountToken": True}, id="token for all pods"
    ),
    pytest.param(CONFIG_MAP, "-progress", {"metadata": {"labels": None}}, id="lost labels"),
    pytest.param(ROLE, "", {"metadata": {"ownerReferences": None}}, id="lost owner"),
]


@pytest.mark.parametrize(("kind", "suffix", "patch"), EDITS)
def test_a_child_that_someone_edits_is_mended(kind: Kind, suffix: str, patch: Any) -> None:
    def edit(world: World) -> None:
        world.server.patch(child(world, kind, suffix), patch, PERSON)

    end = end_of(interfering(edit))
    assert end.phase == "Succeeded"
    assert end.objects == undisturbed(LONG).objects


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', "null", "x" * 100_000])
def test_a_hostile_progress_record_does_no_harm(text: str) -> None:
    def write(world: World) -> None:
        patch = {"data": {"progress.json": text}}
        world.server.patch(child(world, CONFIG_MAP, "-progress"), patch, "stranger")

    end = end_of(interfering(write))
    assert end.phase == "Succeeded"
    assert end.objects == undisturbed(LONG).objects


def test_a_ray_job_that_someone_deletes_is_followed_by_a_new_try() -> None:
    end = end_of(interfering(lambda world: world.server.delete(child(world, RAY_JOB, "-1"))))
    assert end.phase == "Succeeded"
    assert [name[-2:] for name in end.submissions] == ["-1", "-2"]
    assert set(end.submissions.values()) == {1}


def test_a_ray_job_that_someone_suspends_is_followed_by_a_new_try() -> None:
    def suspend(world: World) -> None:
        world.server.patch(child(world, RAY_JOB, "-1"), {"spec": {"suspend": True}}, PERSON)

    end = end_of(interfering(suspend))
    assert end.phase == "Succeeded"
    assert set(end.submissions.values()) == {1}
    assert not end.orphans


def test_a_job_waits_for_what_is_missing_and_starts_when_it_is_there() -> None:
    async def people(world: World) -> None:
        world.server.served.discard(RAY_JOB)
        await apply(world)
        await world.until(lambda: world.status().get("conditions"))
        accepted = world.status()["conditions"][0]
        assert (accepted["status"], accepted["reason"]) == ("False", "KubeRayNotFound")
        world.server.served.add(RAY_JOB)

    end = end_of(replace(LONG, people=people))
    assert end.phase == "Succeeded"
    assert end.objects == undisturbed(LONG).objects


def test_a_ray_job_that_kuberay_calls_invalid_is_deleted_and_reported() -> None:
    async def people(world: World) -> None:
        world.kuberay.weather.validation = "RayJob spec is invalid: no such thing"
        await apply(world)

    end = end_of(replace(SUCCESS, people=people))
    job = end.objects["DreamBoothJob rex"]
    assert end.phase == "Failed"
    assert "no such thing" in str(job["status"]["conditions"])
    assert not end.submissions


def test_a_queued_job_starts_when_the_queue_lets_it() -> None:
    """Kueue holds a RayJob back by spec.suspend, and lets it go."""

    async def people(world: World) -> None:
        def hold(change: str, kind: Kind, obj: Any) -> None:
            if kind == RAY_JOB and change == "ADDED":
                ref = Ref(RAY_JOB, "default", obj["metadata"]["name"])
                world.server.patch(ref, {"spec": {"suspend": True}}, "kueue")

        world.server.watchers.append(hold)
        make_volume(world)
        make_job(world, **{"spec.queueName": "team"})
        await world.until(lambda: world.status().get("phase") == "Queued")
        (ray_job,) = world.server.find_all(RAY_JOB)
        assert ray_job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
        ref = Ref(RAY_JOB, "default", ray_job["metadata"]["name"])
        world.server.patch(ref, {"spec": {"suspend": False}}, "kueue")

    end = end_of(replace(SUCCESS, people=people))
    assert end.phase == "Succeeded"
    assert list(end.submissions.values()) == [1]
