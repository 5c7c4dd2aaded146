"""Suspending, resuming, and waiting in a queue."""

from dreambooth_operator.clock import to_text
from tests.unit.operator.builders import World, a_job


def test_a_job_made_suspended_asks_for_nothing() -> None:
    world = World.of(a_job().suspended()).settle()
    assert world.phase == "Suspended"
    assert world.made == []
    assert world.condition("Accepted")["status"] == "True"


def test_suspending_ends_the_try_and_deletes_its_ray_job() -> None:
    world = World.of(a_job()).runs().edits(suspend=True).settle()
    assert world.phase == "Suspending"
    assert world.ray_jobs[0]["metadata"]["deletionTimestamp"]
    attempt = world.status["attempts"][0]
    assert attempt["reason"] == "Suspended"
    assert "failure" not in attempt

    world.ray_jobs_go().settle()
    assert world.phase == "Suspended"


def test_a_resumed_job_goes_on_at_once_with_another_try() -> None:
    world = World.of(a_job().with_retries(0)).runs().edits(suspend=True).settle()
    world.ray_jobs_go().settle().edits(suspend=False).settle()
    assert world.phase == "Provisioning"
    assert world.status["attempt"] == 2
    world.ray("Running", "RUNNING").passes(5).driver_tells(stage="train", resumedFromStep=75)
    world.settle()
    assert world.status["attempts"][1]["resumedFromStep"] == 75


def test_resuming_before_the_ray_job_is_gone_waits_for_that() -> None:
    world = World.of(a_job()).runs().edits(suspend=True).settle().edits(suspend=False).settle()
    assert len(world.made) == 1
    assert world.condition("ClusterReady")["reason"] == "CleaningUp"
    world.ray_jobs_go().settle()
    assert len(world.made) == 2


def test_a_job_that_ended_before_it_was_suspended_has_ended() -> None:
    world = World.of(a_job()).runs().driver_tells("Succeeded").ray("Complete", "SUCCEEDED")
    world.edits(suspend=True).settle()
    assert world.phase == "Succeeded"


def test_no_stage_runs_in_a_suspended_job() -> None:
    world = World.of(a_job()).runs()
    stages = [{"name": "photos", "state": "Succeeded"}, {"name": "train", "state": "Running"}]
    world.passes(20).driver_tells(stages=stages, progress={"percent": 30, "etaSeconds": 9}).settle()
    world.edits(suspend=True).settle()
    assert [stage["state"] for stage in world.status["stages"]] == ["Succeeded", "Pending"]
    assert "eta" not in world.status["display"]


def test_a_queued_job_hands_its_ray_job_to_kueue() -> None:
    world = World.of(a_job().in_queue("team-queue")).settle()
    ray_job = world.ray_jobs[0]
    assert ray_job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"
    assert "suspend" not in ray_job["spec"]

    ray_job["spec"]["suspend"] = True
    world.ray("Suspended").settle()
    assert world.phase == "Queued"
    # Waiting in a queue is not provisioning, however long it takes.
    world.edits(limits={"provisioningMinutes": 1}).passes(100_000).settle()
    assert world.phase == "Queued"

    ray_job["spec"]["suspend"] = False
    world.ray("Initializing", startTime=to_text(world.now)).settle()
    assert world.phase == "Provisioning"
    world.passes(60).settle()
    assert world.condition("Succeeded")["reason"] == "ProvisioningTimeout"


def test_a_preempted_job_queues_again_with_another_try() -> None:
    world = World.of(a_job().in_queue("team-queue").with_retries(0)).runs()
    world.current_ray_job["spec"]["suspend"] = True
    world.passes(30).ray("Suspended").settle()
    assert world.status["attempts"][0]["reason"] == "Preempted"
    world.ray_jobs_go().settle()
    assert world.status["attempt"] == 2


def test_a_job_that_changes_its_queue_while_it_waits_gets_a_new_ray_job() -> None:
    world = World.of(a_job().in_queue("slow")).settle()
    world.current_ray_job["spec"]["suspend"] = True
    world.ray("Suspended").settle().edits(queueName="fast").settle().ray_jobs_go().settle()
    labels = world.current_ray_job["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "fast"


def test_a_ray_job_that_someone_suspended_is_replaced() -> None:
    world = World.of(a_job().with_retries(0)).runs()
    world.current_ray_job["spec"]["suspend"] = True
    world.ray("Suspended").settle()
    assert world.status["attempts"][0]["reason"] == "RayJobChanged"
    world.ray_jobs_go().settle()
    assert world.phase == "Provisioning"


def test_so_many_suspensions_do_not_outgrow_status_and_lose_no_gpu_time() -> None:
    world = World.of(a_job())
    for _ in range(40):
        world.runs().passes(10).driver_tells(gpuSeconds=10.0).settle()
        world.edits(suspend=True).settle().ray_jobs_go().settle().edits(suspend=False)
    world.settle()
    assert world.status["attempt"] == 41
    assert len(world.status["attempts"]) == 32
    assert world.status["gpuSeconds"] == 400.0
    assert world.status["attempts"][0]["reason"] == "EarlierAttempts"
