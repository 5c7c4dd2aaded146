"""What holds in any course of events, and for whatever is observed."""

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth.api.schema import schema_problems
from dreambooth_operator.job import parse_job
from dreambooth_operator.kube.kinds import CONFIG_MAP, RAY_JOB, Ref
from dreambooth_operator.planner.observed import KubeRay, Observed
from dreambooth_operator.planner.planning import plan
from tests.unit.operator.builders import NOON, STATUS, AJob, World, a_config, a_job

Happening = Callable[[World], object]


def _kuberay_says(deployment: str, job: str) -> Happening:
    def happen(world: World) -> None:
        for obj in world.ray_jobs:
            obj.setdefault("status", {}).update(jobDeploymentStatus=deployment, jobStatus=job)

    return happen


def _driver_tells(state: str, **record: Any) -> Happening:
    def happen(world: World) -> None:
        if any(ref.name.endswith("-progress") for ref in world.objects):
            world.driver_tells(state, **record)

    return happen


def _kueue(suspend: bool) -> Happening:
    def happen(world: World) -> None:
        for obj in world.ray_jobs:
            obj["spec"]["suspend"] = suspend

    return happen


def _a_child_is_deleted(world: World) -> None:
    ours = [ref for ref in world.objects if ref.name.startswith("rex-")]
    if ours:
        del world.objects[sorted(ours, key=str)[world.writes % len(ours)]]


USER = {"class": "user", "reason": "NoPhotos", "message": "None there."}
MACHINE = {"class": "infrastructure", "reason": "HubUnreachable", "message": "Away."}

HAPPENINGS: dict[str, Happening] = {
    "time passes": lambda world: world.passes(20),
    "an hour passes": lambda world: world.passes(3600),
    "kuberay starts": _kuberay_says("Initializing", ""),
    "kuberay runs": _kuberay_says("Running", "RUNNING"),
    "kuberay succeeds": _kuberay_says("Complete", "SUCCEEDED"),
    "kuberay fails": _kuberay_says("Failed", "FAILED"),
    "kuberay fails though it runs": _kuberay_says("Failed", "RUNNING"),
    "kuberay refuses": _kuberay_says("ValidationFailed", ""),
    "kuberay suspends": _kuberay_says("Suspended", ""),
    "kuberay is stopped": _kuberay_says("Complete", "STOPPED"),
    "deleted ray jobs go": lambda world: world.ray_jobs_go(),
    "ray jobs are lost": lambda world: world.ray_jobs.clear(),
    "kueue holds": _kueue(True),
    "kueue lets go": _kueue(False),
    "head starts": lambda world: world.head_starts(),
    "head dies": lambda world: world.head_dies(),
    "driver runs": _driver_tells("Running", stage="train", gpuSeconds=5.0),
    "driver succeeds": _driver_tells("Succeeded", progress={"percent": 100}),
    "driver fails": _driver_tells("Failed", failure=USER),
    "driver loses machines": _driver_tells("Failed", failure=MACHINE),
    "driver is interrupted": _driver_tells("Interrupted"),
    "an old driver speaks": _driver_tells("Succeeded", attempt=1),
    "someone suspends": lambda world: world.edits(suspend=True),
    "someone resumes": lambda world: world.edits(suspend=False),
    "someone limits": lambda world: world.edits(limits={"gpuHours": 0.01, "runMinutes": 5}),
    "someone queues": lambda world: world.edits(queueName="q"),
    "a child is deleted": _a_child_is_deleted,
    "kuberay goes": lambda world: setattr(world, "kuberay", KubeRay.MISSING),
    "kuberay comes": lambda world: setattr(world, "kuberay", KubeRay.READY),
}
JOBS = st.sampled_from(
    [
        a_job(),
        a_job().suspended(),
        a_job().in_queue("q").with_retries(1),
        a_job().with_workers(2).drawing_on("draw").on_volume(size="1Gi"),
        a_job().limited_to(provisioningMinutes=5, gpuHours=1),
        a_job().deleted_after(60),
    ]
)


@settings(max_examples=200, deadline=None)
@given(JOBS, st.lists(st.sampled_from(sorted(HAPPENINGS)), max_size=25))
def test_in_any_course_of_events_one_ray_job_is_alive_and_the_planner_comes_to_rest(
    job: AJob, course: list[str]
) -> None:
    # World asserts that no RayJob is made beside another, and that status fits the API.
    world = World.of(job)
    for happening in course:
        HAPPENINGS[happening](world)
        world.settle()
        assert world.plan().settled
        alive = [o for o in world.ray_jobs if "deletionTimestamp" not in o["metadata"]]
        assert len(alive) <= 1
        unfinished = world.phase not in ("Succeeded", "Failed")
        assert not (alive and unfinished and world.job["spec"]["suspend"])
        numbers = [attempt["number"] for attempt in world.status.get("attempts", [])]
        assert numbers == sorted(set(numbers))
        going_on = [a for a in world.status.get("attempts", []) if "endTime" not in a]
        assert len(going_on) <= 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(sorted(HAPPENINGS)), max_size=20), st.data())
def test_a_course_of_events_in_which_some_looks_are_missed_ends_as_well(
    course: list[str], data: st.DataObject
) -> None:
    world = World.of(a_job().with_retries(20))
    for happening in course:
        HAPPENINGS[happening](world)
        if data.draw(st.booleans()):
            world.look()
    world.edits(suspend=False).kuberay = KubeRay.READY
    for _ in range(30):
        if world.settle().phase in ("Succeeded", "Failed"):
            break
        world.ray_jobs_go().passes(1000).settle()
        if world.ray_jobs:
            HAPPENINGS["kueue lets go"](world)
            world.ray("Complete", "SUCCEEDED")
    assert world.phase in ("Succeeded", "Failed")
    assert world.plan().settled or world.ray_jobs_go().plan().settled


@given(st.lists(st.sampled_from(sorted(HAPPENINGS)), max_size=12), st.integers(0, 2**32))
def test_the_same_arguments_give_the_same_answer(course: list[str], uid: int) -> None:
    world = World.of(a_job().named("rex", f"uid-{uid}"))
    for happening in course:
        HAPPENINGS[happening](world)
        world.look()
    assert world.plan() == copy.deepcopy(world).plan()


WORDS = st.sampled_from(
    ["Running", "Failed", "Complete", "True", "2026-03-01T12:00:00Z", "rex-1", "gpu", "", "x"]
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**15) | st.floats() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def _fields(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), JUNK)


SPEC = _fields("cluster", "workspace", "limits", "retries", "suspend", "subject", "queueName")
CONDITION = st.fixed_dictionaries({"type": WORDS, "status": WORDS, "lastTransitionTime": WORDS})
ATTEMPT = st.fixed_dictionaries(
    {"number": st.integers(-1, 2000), "startTime": WORDS, "rayJob": WORDS},
    optional={"endTime": WORDS},
)
RAY_STATUS = _fields(
    "jobDeploymentStatus", "jobStatus", "reason", "message", "startTime", "rayClusterStatus"
)


@settings(max_examples=200, deadline=None)
@given(
    SPEC,
    st.lists(CONDITION, max_size=3),
    st.lists(ATTEMPT, max_size=3),
    st.lists(RAY_STATUS, max_size=2),
    JUNK,
    JUNK,
)
def test_whatever_is_observed_nothing_raises(
    spec: dict[str, Any],
    conditions: list[Any],
    attempts: list[Any],
    ray_statuses: list[Any],
    progress: Any,
    head: Any,
) -> None:
    job = a_job().build()
    job["spec"] |= spec
    job["status"] = {"conditions": conditions, "attempts": attempts}
    parsed = parse_job(job)
    names = parsed.names
    ray_jobs = []
    for index, status in enumerate(ray_statuses):
        obj = RAY_JOB.new("team", names.ray_job(index + 1), status=status, spec={})
        obj["metadata"]["uid"] = str(index)
        ray_jobs.append(obj)
    ref = Ref(CONFIG_MAP, "team", names.progress_config_map)
    objects = {ref: {"data": {"progress.json": json.dumps(progress)}, "metadata": {}}}
    observed = Observed(objects, tuple(ray_jobs), ({"metadata": {}, "status": head},))
    decided = plan(parsed, observed, NOON, a_config())
    assert all(obj["metadata"]["namespace"] == "team" for obj in decided.apply)
    if decided.status is not None:
        assert schema_problems(decided.status, STATUS) == []
