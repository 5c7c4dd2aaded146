"""Status: when it is written, what it shows, and what is told beside it."""

import pytest

from dreambooth_operator.planner.display import duration
from tests.unit.operator.builders import World, a_config, a_job, a_pool


def test_all_conditions_are_there_from_the_first_look() -> None:
    world = World.of(a_job())
    world.look()
    types = [entry["type"] for entry in world.status["conditions"]]
    assert types == ["Accepted", "ClusterReady", "Running", "Suspended", "Succeeded"]
    for entry in world.status["conditions"]:
        assert entry["reason"]
        assert entry["message"].endswith(".")
        assert entry["observedGeneration"] == 1


def test_a_condition_keeps_its_time_as_long_as_its_status_stays() -> None:
    world = World.of(a_job()).settle()
    before = world.condition("ClusterReady")["lastTransitionTime"]
    cluster = {"desiredWorkerReplicas": 2, "readyWorkerReplicas": 1}
    world.passes(30).ray("Initializing", rayClusterStatus=cluster).settle()
    ready = world.condition("ClusterReady")
    assert ready["message"] == "1 of 2 workers are ready; the driver starts when all are."
    assert ready["lastTransitionTime"] == before
    world.passes(30).ray("Running", "PENDING").settle()
    assert world.condition("ClusterReady")["lastTransitionTime"] == "2026-03-01T12:01:00Z"


def test_figures_alone_are_written_once_an_interval() -> None:
    world = World.of(a_job()).runs()
    written = world.writes
    for second in range(1, 10):
        world.passes(1).driver_tells(stage="photos", progress={"percent": second}).look()
    assert world.writes == written
    assert world.look().requeue_after == 1.0
    world.passes(1).look()
    assert world.status["progress"]["percent"] == 9


def test_a_new_stage_is_written_at_once() -> None:
    world = World.of(a_job()).runs()
    world.passes(1).driver_tells(stage="classImages", progress={"percent": 3}).look()
    assert world.status["stage"] == "classImages"
    assert world.reasons()[-1] == "StageStarted"


def test_an_hour_of_many_workers_coming_up_is_not_a_write_each() -> None:
    pools = {"gpu": a_pool(max_workers=64)}
    world = World.of(a_job().with_workers(64), config=a_config(pools=pools)).settle()
    written = world.writes
    for ready in range(64):
        cluster = {"desiredWorkerReplicas": 64, "readyWorkerReplicas": ready}
        world.passes(60).ray("Initializing", rayClusterStatus=cluster).settle()
    assert world.writes - written <= 4


def test_pods_that_are_refused_are_reported_in_kuberays_words() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"}
    world = World.of(a_job()).settle()
    world.ray("Initializing", rayClusterStatus={"conditions": [failure]}).settle()
    ready = world.condition("ClusterReady")
    assert ready["reason"] == "PodsRefused"
    assert "exceeded quota: gpus" in ready["message"]
    assert world.told[-1].type == "Warning"


def test_pods_that_no_node_takes_are_reported_in_the_schedulers_words() -> None:
    said = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    world = World.of(a_job().with_workers(2)).settle().ray("Initializing")
    world.no_node_takes("workers-b", "workers-a", because=said).settle()
    assert world.condition("ClusterReady")["reason"] == "Provisioning", "it may be a moment's wait"
    world.passes(60).settle()
    ready = world.condition("ClusterReady")
    assert (ready["status"], ready["reason"]) == ("False", "Unschedulable")
    assert ready["message"] == f"No node takes 2 pods yet. The scheduler says: {said}"
    assert world.status["phase"] == "Provisioning"
    world.no_node_takes(because="").settle()
    assert world.condition("ClusterReady")["reason"] == "Provisioning"


def test_gpu_time_goes_on_after_the_last_word_of_a_driver_that_was_lost() -> None:
    world = World.of(a_job().with_workers(2)).runs()
    world.passes(10).driver_tells(gpuSeconds=20.0).settle()
    world.passes(30).ray("Failed", "FAILED", reason="AppFailed").settle()
    # 20 s that the driver counted, and 30 s of 2 GPUs.
    assert world.status["attempts"][0]["gpuSeconds"] == 80.0


def test_gpu_time_of_a_driver_that_never_spoke_is_that_of_its_machines() -> None:
    world = World.of(a_job().with_workers(2)).settle().passes(100)
    world.ray("Running", "RUNNING").settle().passes(50).ray("Failed", "FAILED").settle()
    assert world.status["gpuSeconds"] == 100.0


def test_gpu_time_that_nobody_was_awake_for_is_what_ray_says() -> None:
    world = World.of(a_job()).settle().passes(1000)
    times = {"startTime": "2026-03-01T12:01:00Z", "endTime": "2026-03-01T12:02:30Z"}
    world.ray("Failed", "FAILED", rayJobInfo=times).settle()
    assert world.status["gpuSeconds"] == 90.0


def test_nobody_can_claim_more_gpu_time_than_there_was() -> None:
    world = World.of(a_job()).runs().passes(10).driver_tells(gpuSeconds=1e9).settle()
    assert world.status["gpuSeconds"] == 15.0


def test_two_pools_cost_what_their_gpus_cost() -> None:
    world = World.of(a_job().with_workers(1).drawing_on("draw")).runs()
    world.passes(3600).driver_tells(gpuSeconds=3600.0).settle()
    # Half of the GPU time at 3.60, half at 1.20.
    assert world.status["cost"] == {"amount": 2.4, "currency": "EUR"}


def test_a_pool_without_a_price_costs_nothing_that_is_known() -> None:
    world = World.of(a_job(), config=a_config(pools={"gpu": a_pool(price=None)})).runs()
    assert "cost" not in world.passes(60).driver_tells(gpuSeconds=9.0).settle().status


def test_the_driver_is_told_what_earlier_tries_used_and_what_is_left() -> None:
    world = World.of(a_job().limited_to(gpuHours=1)).runs().passes(40).driver_tells(gpuSeconds=40.0)
    world.ray("Failed", "FAILED").settle().ray_jobs_go().passes(60).settle()
    cluster = world.current_ray_job["spec"]["rayClusterSpec"]
    variables = {
        entry["name"]: entry["value"]
        for entry in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert variables["DREAMBOOTH_ATTEMPT"] == "2"
    assert variables["DREAMBOOTH_GPU_SECONDS_USED"] == "40.000"
    assert variables["DREAMBOOTH_GPU_SECONDS_LIMIT"] == "3600.000"


def test_many_jobs_together_tell_their_progress_less_often() -> None:
    world = World.of(a_job(), busy=500).settle()
    cluster = world.current_ray_job["spec"]["rayClusterSpec"]
    environment = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "DREAMBOOTH_PROGRESS_INTERVAL", "value": "50"} in environment


def test_warnings_of_the_driver_are_told_when_it_ends() -> None:
    world = World.of(a_job()).runs()
    world.driver_tells("Succeeded", warnings=["a.jpg is blurred", "a.jpg is blurred"])
    world.ray("Complete", "SUCCEEDED").settle()
    assert [event.message for event in world.told if event.reason == "Warned"] == [
        "a.jpg is blurred"
    ]


def test_what_earlier_tries_told_stays_until_there_is_news() -> None:
    world = World.of(a_job()).runs()
    world.passes(20).driver_tells(
        stage="train", progress={"percent": 40}, resolved={"token": "sks"}
    )
    world.settle().ray("Failed", "FAILED").settle().ray_jobs_go().passes(60).settle()
    assert world.status["progress"]["percent"] == 40
    assert world.status["resolved"]["token"] == "sks"
    assert world.status["resolved"]["image"] == "example.com/runtime:1"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (420, "7m"),
        (3599, "1h"),
        (4320, "1h12m"),
        (90_000, "1d1h"),
        (1e12, "ages"),
    ],
)
def test_times_are_shown_in_their_two_largest_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
