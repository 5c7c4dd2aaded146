"""What a job needs to run here, and that it runs as soon as it has that."""

from dataclasses import replace

import pytest

from dreambooth_operator.config import Namespace, Workspace
from dreambooth_operator.kube.kinds import CONFIG_MAP, Ref
from dreambooth_operator.planner.observed import KubeRay
from tests.unit.operator.builders import AJob, World, a_config, a_job, a_pool


def refusal(world: World) -> tuple[str, str]:
    """Reason and message of a job that is not accepted and asked for nothing."""
    accepted = world.settle().condition("Accepted")
    assert accepted["status"] == "False"
    assert world.phase == "Pending"
    assert world.made == []
    return accepted["reason"], accepted["message"]


@pytest.mark.parametrize(
    ("job", "reason", "words"),
    [
        (
            a_job().with_workers(1, pool="h100"),
            "UnknownPool",
            "no pool h100 * draw, gpu",
        ),
        (a_job().drawing_on("h100"), "UnknownPool", "spec.cluster.generation.pool: * draw, gpu"),
        (a_job().with_workers(5), "TooManyWorkers", "spec.cluster.workers: 5 are more than the 4"),
        (a_job().on_volume(claimName="none"), "ClaimNotFound", "no claim none in namespace team"),
    ],
)
def test_a_job_that_cannot_run_says_why_and_what_to_do(job: AJob, reason: str, words: str) -> None:
    found, message = refusal(World.of(job))
    assert found == reason
    for part in words.split(" * "):
        assert part in message


def test_without_a_default_pool_a_job_has_to_name_one() -> None:
    reason, message = refusal(World.of(a_job(), config=a_config(default_pool=None)))
    assert reason == "NoPool"
    assert "draw, gpu" in message


def test_without_a_default_volume_a_job_has_to_name_one() -> None:
    reason, message = refusal(World.of(a_job(), config=a_config(workspace=Workspace())))
    assert reason == "NoWorkspace"
    assert "workspace.claimName" in message


def test_a_claim_for_one_node_is_refused() -> None:
    world = World.of(a_job().on_volume(claimName="disk")).has_claim("disk", "ReadWriteOnce")
    reason, message = refusal(world)
    assert reason == "ClaimNotShared"
    assert "ReadWriteOnce" in message


def test_a_missing_claim_heals_when_it_is_made() -> None:
    world = World.of(a_job().on_volume(claimName="late")).settle()
    assert world.look().requeue_after == 30.0
    world.has_claim("late").settle()
    assert world.phase == "Provisioning"
    assert world.reasons() == ["ClaimNotFound", "Accepted", "AttemptStarted"]


def test_missing_photos_in_a_config_map_heal_when_it_is_made() -> None:
    world = World.of(a_job().with_photos(configMap={"name": "photos"}))
    reason, message = refusal(world)
    assert reason == "PhotosConfigMapNotFound"
    assert "ConfigMap photos" in message
    world.objects[Ref(CONFIG_MAP, "team", "photos")] = CONFIG_MAP.new("team", "photos")
    assert world.settle().phase == "Provisioning"


@pytest.mark.parametrize(
    ("state", "reason"),
    [(KubeRay.MISSING, "KubeRayNotFound"), (KubeRay.TOO_OLD, "KubeRayTooOld")],
)
def test_a_job_waits_for_kuberay(state: KubeRay, reason: str) -> None:
    world = World.of(a_job(), kuberay=state)
    found, message = refusal(world)
    assert found == reason
    assert "1.6" in message
    world.kuberay = KubeRay.READY
    assert world.settle().phase == "Provisioning"


def test_a_pool_that_is_taken_away_does_not_stop_who_runs_on_it() -> None:
    world = World.of(a_job().with_workers(1, pool="draw")).runs()
    world.config = replace(world.config, pools={"gpu": a_pool()})
    world.passes(10).driver_tells(gpuSeconds=5.0).settle()
    assert world.phase == "Running"
    assert world.status["gpuSeconds"] == 5.0
    assert world.status["cost"]["amount"] >= 0
    world.driver_tells("Succeeded").ray("Complete", "SUCCEEDED").settle()
    assert world.phase == "Succeeded"


def test_a_claim_of_its_own_is_made_and_owned_by_the_job() -> None:
    world = World.of(a_job().on_volume(size="5Gi", storageClassName="shared")).settle()
    (claim,) = [obj for ref, obj in world.objects.items() if ref.name.endswith("-workspace")]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "5Gi"}},
        "storageClassName": "shared",
    }
    assert claim["metadata"]["ownerReferences"][0]["name"] == "rex"
    claim["spec"]["resources"]["requests"]["storage"] = "10Gi"
    assert world.passes(60).look().apply == ()


def test_a_namespace_can_have_a_volume_of_its_own() -> None:
    config = a_config(namespaces={"team": Namespace(workspace=Workspace(claim_name="ours"))})
    world = World.of(a_job(), config=config).has_claim("ours").settle()
    assert world.status["resolved"]["claimName"] == "ours"


def test_a_suspended_job_that_cannot_run_says_both() -> None:
    world = World.of(a_job().suspended().with_workers(1, pool="h100")).settle()
    assert world.phase == "Suspended"
    assert world.condition("Accepted")["reason"] == "UnknownPool"


def test_a_job_whose_name_is_too_long_is_refused_without_a_crash() -> None:
    reason, message = refusal(World.of(a_job().named("a" * 35)))
    assert reason == "InvalidJob"
    assert "34" in message
