"""What becomes of a job, from its first look to its last."""

import pytest

from dreambooth_operator.clock import from_text
from dreambooth_operator.config import Limits
from tests.unit.operator.builders import NOON, AJob, World, a_config, a_job


def test_a_try_is_written_down_before_its_ray_job_is_made() -> None:
    world = World.of(a_job())
    first = world.look()
    assert first.apply == ()
    assert first.status is not None
    assert first.status["attempt"] == 1

    second = world.look()
    assert [obj["kind"] for obj in second.apply][-1] == "RayJob"
    assert second.apply[-1]["metadata"]["name"] == world.status["rayJob"]


def test_an_undisturbed_job_goes_through_its_phases_and_succeeds() -> None:
    world = World.of(a_job().with_workers(2)).settle()
    assert world.phase == "Provisioning"

    world.ray("Running", "RUNNING").settle()
    assert (world.phase, world.condition("Running")["reason"]) == ("Running", "Starting")

    world.passes(10).driver_tells(
        stage="train",
        stages=[{"name": "train", "state": "Running", "done": 120, "total": 300, "unit": "steps"}],
        progress={"percent": 42, "etaSeconds": 400, "step": 120, "totalSteps": 300, "loss": 0.1},
        gpuSeconds=12.0,
    ).settle()
    assert world.status["stage"] == "train"
    assert world.status["display"] == {"progress": "42%", "eta": "7m", "gpuTime": "12s"}
    assert world.condition("Running")["message"] == "Stage train runs."

    world.passes(60).driver_tells(
        "Succeeded",
        stage="evaluate",
        progress={"percent": 100},
        gpuSeconds=110.0,
        quality={"encoder": "dino-vits16", "subjectFidelity": 0.812},
        outputs={"folder": "jobs/rex"},
    ).ray("Complete", "SUCCEEDED").settle()
    assert world.phase == "Succeeded"
    assert from_text(world.status["completionTime"]) == world.now
    assert world.status["display"]["fidelity"] == "0.81 (dino-vits16)"
    assert world.status["outputs"] == {"folder": "jobs/rex"}
    assert world.status["gpuSeconds"] == 110.0
    # 110 s at 3.60 EUR an hour.
    assert world.status["cost"] == {"amount": 0.11, "currency": "EUR"}
    assert world.made == [world.status["rayJob"]]
    assert world.reasons() == [
        "AttemptStarted",
        "ClusterReady",
        "StageStarted",
        "Succeeded",
    ]


def test_a_settled_job_gets_no_write_however_often_it_is_looked_at() -> None:
    world = World.of(a_job()).runs().driver_tells("Succeeded").ray("Complete", "SUCCEEDED").settle()
    writes = world.writes
    for _ in range(3):
        assert world.passes(1000).look().settled
    assert world.writes == writes


def test_a_user_failure_ends_the_job_at_once_and_says_what_to_do() -> None:
    world = World.of(a_job()).runs()
    failure = {
        "class": "user",
        "reason": "NoPhotos",
        "field": "spec.subject.photos.path",
        "message": "there are no photos. Put some there.",
    }
    world.driver_tells("Failed", failure=failure).ray("Failed", "FAILED", reason="AppFailed")
    world.settle()
    assert world.phase == "Failed"
    succeeded = world.condition("Succeeded")
    assert (succeeded["status"], succeeded["reason"]) == ("False", "NoPhotos")
    assert succeeded["message"] == (
        "spec.subject.photos.path: there are no photos. Put some there."
    )
    assert world.status["attempts"][0]["failure"] == "user"
    assert len(world.made) == 1


def test_an_infrastructure_failure_is_tried_again_after_a_wait() -> None:
    world = World.of(a_job()).runs().passes(10)
    world.ray("Failed", "FAILED", reason="AppFailed", message="exit code 3").settle()
    assert world.phase == "Retrying"
    assert world.status["attempts"][0]["reason"] == "DriverFailed"

    # The old RayJob is deleted, and as long as it is there the next one is not made.
    assert world.ray_jobs[0]["metadata"]["deletionTimestamp"]
    world.passes(600).settle()
    assert len(world.made) == 1

    world.ray_jobs_go().settle()
    assert world.status["attempt"] == 2
    assert len(world.made) == 2
    assert world.phase == "Provisioning"


def test_the_wait_doubles_and_is_the_same_for_everyone_who_works_it_out() -> None:
    world = World.of(a_job().with_retries(9))
    waits = []
    for _ in range(5):
        world.runs().ray("Failed", "FAILED", reason="AppFailed").settle().ray_jobs_go()
        wait = world.look().requeue_after
        assert wait is not None
        assert wait == world.plan().requeue_after
        waits.append(wait)
        world.passes(wait - 1).settle()
        assert world.phase == "Retrying"
        world.passes(1)
    # 10, 20, 40, 80 and at most 100 s, each a fifth more or less.
    for wait, planned in zip(waits, (10, 20, 40, 80, 100), strict=True):
        assert 0.8 * planned - 1 <= wait <= 1.2 * planned + 1


def test_a_job_fails_when_its_retries_are_used_up() -> None:
    world = World.of(a_job().with_retries(1))
    for _ in range(2):
        world.runs().ray("Failed", "FAILED", reason="SubmissionFailed").settle()
        world.ray_jobs_go().passes(1000)
    world.settle()
    assert world.phase == "Failed"
    assert world.condition("Succeeded")["reason"] == "SubmissionFailed"
    assert [attempt["failure"] for attempt in world.status["attempts"]] == ["infrastructure"] * 2


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"deployment": "Failed", "reason": "AppFailed"}, "DriverFailed"),
        ({"deployment": "Failed", "reason": "SubmissionFailed"}, "SubmissionFailed"),
        ({"deployment": "Failed", "reason": "JobStatusCheckTimeoutExceeded"}, "HeadUnreachable"),
        ({"deployment": "ValidationFailed", "message": "bad spec"}, "RayJobRefused"),
        ({"deployment": "Failed", "reason": "SomethingNew"}, "RayJobFailed"),
        ({"deployment": "Complete", "job": "STOPPED"}, "DriverStopped"),
        ({"deployment": "Failed", "job": "RUNNING", "reason": "AppFailed"}, "DriverFailed"),
    ],
)
def test_what_kuberay_says_of_a_failure_becomes_a_reason(
    status: dict[str, str], reason: str
) -> None:
    world = World.of(a_job()).runs().ray(**status).settle()
    attempt = world.status["attempts"][0]
    assert (attempt["failure"], attempt["reason"]) == ("infrastructure", reason)


def test_a_ray_job_that_kuberay_refuses_is_deleted_and_reported_in_its_words() -> None:
    world = World.of(a_job()).settle().ray("ValidationFailed", message="name too long").settle()
    assert "name too long" in world.condition("Succeeded")["message"]
    assert world.ray_jobs[0]["metadata"]["deletionTimestamp"]


def test_the_drivers_last_word_counts_if_kuberay_has_lost_track() -> None:
    world = World.of(a_job()).runs().driver_tells("Succeeded", progress={"percent": 100})
    world.passes(30).settle()
    assert world.phase == "Running"
    world.passes(31).settle()
    assert world.phase == "Succeeded"
    assert world.ray_jobs[0]["metadata"]["deletionTimestamp"]


def test_a_job_whose_ray_job_is_gone_after_its_last_word_is_not_run_again() -> None:
    world = World.of(a_job()).runs().driver_tells("Succeeded")
    world.ray_jobs.clear()
    world.settle()
    assert world.phase == "Succeeded"
    assert len(world.made) == 1


def test_a_lost_head_is_replaced_once_the_driver_is_silent() -> None:
    world = World.of(a_job()).runs().head_dies().passes(40).settle()
    assert world.phase == "Running"
    world.passes(20).settle()
    assert world.status["attempts"][0]["reason"] == "HeadLost"
    world.ray_jobs_go().passes(60).settle()
    assert world.status["attempt"] == 2


def test_a_new_head_does_not_run_the_driver_of_the_old_one() -> None:
    world = World.of(a_job()).runs().passes(20).head_starts().passes(50).settle()
    assert world.status["attempts"][0]["reason"] == "HeadLost"


def test_a_silent_driver_with_a_living_head_is_said_and_not_replaced() -> None:
    world = World.of(a_job()).runs().passes(300).settle()
    assert world.phase == "Running"
    assert world.condition("Running")["reason"] == "DriverSilent"


def test_a_head_on_a_node_that_went_away_is_given_up_later() -> None:
    world = World.of(a_job()).runs()
    world.heads[0]["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    world.passes(60).settle()
    assert world.phase == "Running"
    world.passes(60).settle()
    assert world.status["attempts"][0]["reason"] == "HeadLost"


def test_a_record_of_an_earlier_try_says_nothing_of_this_one() -> None:
    world = World.of(a_job()).runs().ray("Failed", "FAILED").settle().ray_jobs_go()
    world.passes(60).settle()
    record = {
        "version": 1,
        "attempt": 1,
        "state": "Succeeded",
        "updateTime": "2026-03-01T13:00:00Z",
    }
    import json

    world.progress_is(json.dumps(record)).settle()
    assert world.phase == "Provisioning"


def test_a_deleted_ray_job_is_made_again_under_its_name() -> None:
    world = World.of(a_job()).settle()
    world.ray_jobs.clear()
    world.settle()
    assert world.made == [world.status["rayJob"]] * 2
    assert world.status["attempt"] == 1


def test_a_job_that_is_being_deleted_is_left_to_kubernetes() -> None:
    world = World.of(a_job()).runs()
    world.job["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    assert world.passes(10_000).look().settled


def test_a_finished_job_is_deleted_when_its_time_has_come() -> None:
    world = World.of(a_job().deleted_after(60)).runs().driver_tells("Succeeded")
    world.ray("Complete", "SUCCEEDED").settle()
    assert world.look().requeue_after == 60.0
    world.passes(59).look()
    assert not world.deleted
    world.passes(1).look()
    assert world.deleted


def test_whoever_changes_a_finished_job_sees_that_it_was_seen() -> None:
    world = World.of(a_job()).runs().ray("Complete", "SUCCEEDED").settle()
    world.edits(ttlSecondsAfterFinished=10_000).settle()
    assert world.status["observedGeneration"] == 2
    assert world.phase == "Succeeded"


def test_a_missing_child_is_made_again_while_the_job_runs() -> None:
    world = World.of(a_job()).runs()
    (ref,) = [ref for ref in world.objects if ref.kind.name == "Role"]
    del world.objects[ref]
    assert [obj["kind"] for obj in world.passes(60).look().apply] == ["Role"]


def test_a_child_that_someone_edited_is_mended() -> None:
    world = World.of(a_job()).runs()
    (ref,) = [ref for ref in world.objects if ref.kind.name == "Role"]
    world.objects[ref]["rules"] = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    (mended,) = world.passes(60).look().apply
    assert mended["rules"][0]["verbs"] == ["get", "patch"]


def test_what_others_add_to_a_child_is_theirs() -> None:
    world = World.of(a_job()).runs()
    for obj in world.objects.values():
        obj["metadata"].setdefault("annotations", {})["team"] = "a"
    assert world.passes(60).look().apply == ()


@pytest.mark.parametrize(
    ("job", "seconds", "reason"),
    [
        (a_job().limited_to(provisioningMinutes=10), 600, "ProvisioningTimeout"),
        (a_job().limited_to(runMinutes=30), None, None),
    ],
)
def test_machines_that_do_not_come_in_time_end_the_job(
    job: AJob, seconds: int | None, reason: str | None
) -> None:
    world = World.of(job).settle()
    world.passes(seconds or 100_000).settle()
    assert (world.phase == "Failed") == (reason is not None)
    if reason:
        assert world.status["attempts"][0]["failure"] == "deadline"
        assert world.condition("Succeeded")["reason"] == reason


def test_a_try_that_runs_too_long_ends_the_job() -> None:
    world = World.of(a_job().limited_to(runMinutes=30)).runs()
    world.passes(1700).driver_tells().settle()
    assert world.phase == "Running"
    world.passes(101).driver_tells().settle()
    assert world.condition("Succeeded")["reason"] == "RunTimeout"
    assert world.ray_jobs[0]["metadata"]["deletionTimestamp"]


def test_the_administrators_limit_counts_if_it_is_lower() -> None:
    config = a_config(limits=Limits(run_minutes=10))
    world = World.of(a_job().limited_to(runMinutes=30), config=config).runs()
    world.passes(601).driver_tells().settle()
    assert world.condition("Succeeded")["reason"] == "RunTimeout"


def test_the_driver_that_used_its_gpu_hours_ends_the_job_with_what_it_has() -> None:
    world = World.of(a_job().limited_to(gpuHours=0.01)).runs().passes(40)
    failure = {"class": "budget", "reason": "GpuHoursReached", "message": "0.01 GPU-hours used."}
    world.driver_tells("Failed", failure=failure, outputs={"folder": "jobs/rex"}, gpuSeconds=36.0)
    world.ray("Failed", "FAILED", reason="AppFailed").settle()
    assert world.phase == "Failed"
    assert world.status["attempts"][0]["failure"] == "budget"
    assert world.status["outputs"]["folder"] == "jobs/rex"


def test_a_driver_that_does_not_stop_by_itself_is_stopped() -> None:
    world = World.of(a_job().limited_to(gpuHours=0.1)).runs()
    world.passes(400).driver_tells(gpuSeconds=400.0).settle()
    assert world.phase == "Running"
    world.passes(100).driver_tells(gpuSeconds=500.0).settle()
    assert world.condition("Succeeded")["reason"] == "GpuHoursReached"


def test_no_try_begins_without_gpu_hours_left() -> None:
    world = World.of(a_job().limited_to(gpuHours=0.01)).runs().passes(50)
    world.driver_tells(gpuSeconds=50.0).ray("Failed", "FAILED").settle().ray_jobs_go()
    world.passes(100).settle()
    assert world.condition("Succeeded")["reason"] == "GpuHoursReached"
    assert len(world.made) == 1


def test_time_begins_at_noon() -> None:
    assert World.of(a_job()).settle().status["startTime"] == "2026-03-01T12:00:00Z"
    assert NOON.tzinfo is not None
