"""The operator at work on a real API server, with the rights that the chart gives it, no more."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreambooth_operator.config_file import load_config
from dreambooth_operator.kube.errors import Forbidden, NotFound
from dreambooth_operator.kube.kinds import (
    CLAIM,
    CONFIG_MAP,
    JOB,
    KINDS,
    POD,
    RAY_JOB,
    Kind,
    Object,
    Ref,
    ref_of,
)
from dreambooth_operator.names import Names
from dreambooth_operator.reconcile import Reconciler
from tests.contract import chart
from tests.contract.conftest import Side
from tests.contract.control_plane import ControlPlane
from tests.simulation.world import Unwatched
from tests.unit.api.rule_cases import a_manifest

REPOSITORY = Path(__file__).parents[2]
CONFIG = load_config(REPOSITORY / "operator" / "config.example.yaml")
# Enough to write down the try, to make its children and to see them.
LOOKS = 6


def examples() -> list[Any]:
    """The examples that are for a cluster, by their files' names."""
    files = sorted((REPOSITORY / "examples").rglob("*.yaml"))
    return [
        pytest.param(document, id=str(file.relative_to(REPOSITORY)))
        for file in files
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
        if document and document.get("kind") == JOB.name
    ]


def make(side: Side, manifest: Object) -> Object:
    """The job and what its author has to bring, in a namespace of its own."""
    namespace = side.hands.namespace()
    spec = manifest["spec"]
    claim = spec.get("workspace", {}).get("claimName", CONFIG.workspace.claim_name)
    side.hands.apply(
        CLAIM.new(
            namespace,
            claim,
            spec={
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        )
    )
    photos = spec["subject"]["photos"]
    if "configMap" in photos:
        side.hands.apply(CONFIG_MAP.new(namespace, photos["configMap"]["name"]))
    metadata = {"name": manifest["metadata"]["name"], "namespace": namespace}
    return side.hands.apply(manifest | {"metadata": metadata})


def looked_at(side: Side, job: Object, times: int = LOOKS, **later: float) -> Object:
    """The job after the operator looked at it."""
    now = datetime.now(UTC) + timedelta(**later)
    reconciler = Reconciler(side.api, CONFIG, Unwatched(), clock=lambda: now)
    metadata = job["metadata"]
    for _ in range(times):
        side.ask(reconciler.look(f"{metadata['namespace']}/{metadata['name']}"))
    return side.hands.get(ref_of(job))


def children(side: Side, job: Object) -> list[Object]:
    """All that belongs to the job."""
    namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
    found = [
        obj
        for kind in KINDS.values()
        if kind != JOB
        for obj in side.hands.read_all(kind, namespace)
    ]
    return [
        obj
        for obj in found
        if uid in {owner["uid"] for owner in obj["metadata"].get("ownerReferences", ())}
    ]


def condition(job: Object, name: str) -> Object:
    by_type: dict[str, Object] = {each["type"]: each for each in job["status"]["conditions"]}
    return by_type[name]


@pytest.fixture
def started(real: Side) -> Object:
    """The smallest job, its RayJob made."""
    return looked_at(real, make(real, a_manifest()))


def names_of(job: Object) -> Names:
    metadata = job["metadata"]
    return Names(metadata["name"], metadata["namespace"], metadata["uid"])


@pytest.mark.parametrize("manifest", examples())
def test_the_children_of_every_example_are_accepted_and_then_left_alone(
    side: Side, manifest: Object
) -> None:
    job = looked_at(side, make(side, manifest))
    accepted = condition(job, "Accepted")
    assert accepted["status"] == "True", accepted
    first = children(side, job)
    made = {obj["kind"] for obj in first}
    expected = {"ConfigMap", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "RayJob"}
    if manifest["spec"].get("suspend"):
        assert not made
    else:
        assert expected <= made
    again = looked_at(side, job)
    versions = {str(ref_of(obj)): obj["metadata"]["resourceVersion"] for obj in [*first, job]}
    assert versions == {
        str(ref_of(obj)): obj["metadata"]["resourceVersion"]
        for obj in [*children(side, job), again]
    }


def test_a_job_goes_through_its_life(real: Side, started: Object) -> None:
    ray_job = Ref(RAY_JOB, started["metadata"]["namespace"], started["status"]["rayJob"])
    progress = Ref(CONFIG_MAP, ray_job.namespace, names_of(started).progress_config_map)
    running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    real.hands.patch_status(ray_job, running)
    real.hands.patch(progress, {"data": {"progress.json": record("Running")}})
    job = looked_at(real, started, seconds=5)
    assert (job["status"]["phase"], job["status"]["stage"]) == ("Running", "train")
    assert job["status"]["progress"]["step"] == 120
    real.hands.patch(progress, {"data": {"progress.json": record("Succeeded", seconds=20)}})
    over = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    real.hands.patch_status(ray_job, over)
    job = looked_at(real, started, seconds=30)
    assert job["status"]["phase"] == "Succeeded"
    assert {event["reason"] for event in real.hands.events(ray_job.namespace)} >= {"Succeeded"}
    real.hands.patch(ref_of(job), {"spec": {"ttlSecondsAfterFinished": 0}})
    with pytest.raises(NotFound):
        looked_at(real, started, seconds=60)


def test_a_suspended_job_gives_its_ray_job_up(real: Side, started: Object) -> None:
    ray_job = Ref(RAY_JOB, started["metadata"]["namespace"], started["status"]["rayJob"])
    real.hands.patch(ref_of(started), {"spec": {"suspend": True}})
    assert looked_at(real, started)["status"]["phase"] == "Suspended"
    with pytest.raises(NotFound):
        real.hands.get(ray_job)


def test_user_text_reaches_the_cluster_in_one_config_map_and_nowhere_else(real: Side) -> None:
    nasty = "$(id) `id` \"'; {token} {class}\n# \\ é"
    job = looked_at(real, make(real, a_manifest(**{"spec.generation.prompts": [nasty]})))
    names = names_of(job)
    for obj in children(real, job):
        if obj["metadata"]["name"] != names.job_config_map:
            assert "$(id)" not in json.dumps(obj)
    held = real.hands.get(Ref(CONFIG_MAP, names.namespace, names.job_config_map))
    assert json.loads(held["data"]["job.json"])["spec"]["generation"]["prompts"] == [nasty]


def test_the_driver_may_patch_its_own_progress_and_nothing_else(
    real: Side, plane: ControlPlane, started: Object
) -> None:
    names = names_of(started)
    token = plane.token_of(names.namespace, names.base)

    def answer(method: str, ref: Ref, patch: Object | None = None) -> int:
        content = "application/merge-patch+json"
        return plane.request(method, ref.path, patch, content=content, token=token).status_code

    own = Ref(CONFIG_MAP, names.namespace, names.progress_config_map)
    assert answer("PATCH", own, {"data": {"progress.json": "{}"}}) == 200
    assert answer("GET", own) == 200
    other = Ref(CONFIG_MAP, names.namespace, names.job_config_map)
    secrets = Kind("v1", "Secret", "secrets")
    assert answer("GET", other) == 403
    assert answer("PATCH", other, {"data": {"job.json": "{}"}}) == 403
    assert answer("DELETE", own) == 403
    assert answer("GET", Ref(secrets, names.namespace, "")) == 403
    assert answer("GET", Ref(JOB, names.namespace, names.job)) == 403
    assert answer("GET", Ref(POD, names.namespace, "")) == 403


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (Kind("v1", "Secret", "secrets"), "photos"),
        (Kind("v1", "Node", "nodes"), "gpu-0"),
        (Kind("apps/v1", "Deployment", "deployments"), "web"),
    ],
    ids=lambda value: str(value),
)
def test_the_operator_cannot_read_what_it_has_no_use_for(real: Side, kind: Kind, what: str) -> None:
    with pytest.raises(Forbidden):
        real.ask(real.api.get(Ref(kind, "default", what)))
    with pytest.raises(Forbidden):
        real.ask(real.api.list(kind, "default", {}))


def test_the_operator_cannot_change_what_people_want(real: Side, started: Object) -> None:
    wanted = started | {"metadata": {n: started["metadata"][n] for n in ("name", "namespace")}}
    with pytest.raises(Forbidden):
        real.ask(real.api.apply(wanted))


@pytest.mark.parametrize(
    "settings", [(), ("watchNamespaces={team-a,team-b}",), ("replicas=2",)], ids=str
)
def test_no_right_is_a_wildcard(plane: ControlPlane, settings: tuple[str, ...]) -> None:
    roles = [d for d in chart.rendered(*settings) if d["kind"] in ("ClusterRole", "Role")]
    assert roles
    for role in roles:
        for rule in role.get("rules") or ():
            for name in ("apiGroups", "resources", "verbs"):
                assert "*" not in rule.get(name, ())
            assert "secrets" not in rule.get("resources", ())


def record(state: str, seconds: int = 1) -> str:
    """What a driver tells."""
    now = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps(
        {
            "version": 1,
            "attempt": 1,
            "state": state,
            "updateTime": now,
            "startTime": now,
            "stage": "train",
            "stages": [{"name": "train", "state": "Running", "done": 120, "total": 400}],
            "progress": {"percent": 30, "step": 120, "totalSteps": 400},
            "gpuSeconds": 12.5,
        }
    )
