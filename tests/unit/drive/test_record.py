"""What the operator is told, event by event; each record is valid by the API's own schema."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth.cli.failures import failure_of
from dreambooth.drive.record import MAX_BYTES, ProgressRecord
from dreambooth.drive.work import WorkPlan
from dreambooth.errors import BudgetError, DreamBoothError, InfrastructureError, UserError
from dreambooth.pipeline.progress import Event, EventKind, StageName
from tests.unit.drive.conftest import BEGIN, a_job, at

Check = Callable[[dict[str, Any]], None]

RESOLVED = {
    "token": "sks",
    "model": "emoji",
    "modelRevision": "0123456789ab",
    "modelDigest": "a" * 64,
    "safetyChecker": "none",
    "classImages": {"count": 40, "prompt": "photo of a {class}"},
    "training": {"steps": 300, "learningRate": 4e-4, "method": "full"},
    "encoder": "efficientnet-lite0",
}
RESULT = {
    "summary": "The pictures look 78 % of the way from a generic dog to your photos.",
    "quality": {
        "encoder": "efficientnet-lite0",
        "photos": 5,
        "subjectFidelity": 0.81,
        "baseFidelity": 0.4,
        "photoCeiling": 0.92,
        "gapClosed": 0.78,
        "notes": ["few photos"],
    },
    "outputs": {
        "folder": "jobs/rex-0a1b",
        "model": "model",
        "images": "images",
        "contactSheet": "contact-sheet.png",
        "report": "report.html",
        "modelDigest": "b" * 64,
        "imagesDigest": "c" * 64,
    },
}


def started(gpu_seconds: float = 0.0) -> Event:
    return Event(EventKind.JOB_STARTED, gpu_seconds=gpu_seconds)


def resolved() -> Event:
    return Event(EventKind.JOB_RESOLVED, data=RESOLVED)


def begins(stage: StageName, gpu_seconds: float = 0.0) -> Event:
    return Event(EventKind.STAGE_STARTED, stage=stage, gpu_seconds=gpu_seconds)


def ends(stage: StageName, *, cached: bool = False, gpu_seconds: float = 0.0) -> Event:
    return Event(EventKind.STAGE_FINISHED, stage=stage, cached=cached, gpu_seconds=gpu_seconds)


def progress(stage: StageName, done: int, total: int, unit: str, **details: Any) -> Event:
    return Event(
        EventKind.STAGE_PROGRESS, stage=stage, done=done, total=total, unit=unit, **details
    )


def training() -> ProgressRecord:
    """Two GPUs since twelve o'clock, photos cached, class images drawn, training at step 120."""
    record = ProgressRecord(attempt=2, gpus=2.0, started=BEGIN)
    record.plans(WorkPlan.of(a_job()))
    for second, event in enumerate(
        (
            started(gpu_seconds=30.0),
            ends(StageName.PHOTOS, cached=True),
            begins(StageName.CLASS_IMAGES),
            progress(StageName.CLASS_IMAGES, 40, 40, "images", rate=4.0),
            ends(StageName.CLASS_IMAGES, gpu_seconds=4.0),
            begins(StageName.TRAIN, gpu_seconds=100.0),
            progress(StageName.TRAIN, 75, 300, "steps", resumed_from=75, message="going on"),
            progress(StageName.TRAIN, 120, 300, "steps", step=120, loss=0.1234567, rate=2.0),
        )
    ):
        record.note(event, at(second))
    record.note(resolved(), at(1))
    return record


def test_a_running_job_tells_its_stage_its_steps_and_what_it_has_used(assert_valid: Check) -> None:
    record = training().to_json(at(10))
    assert_valid(record)
    assert (record["state"], record["stage"], record["attempt"]) == ("Running", "train", 2)
    assert record["resumedFromStep"] == 75
    assert record["progress"] | {"percent": 0, "etaSeconds": 0} == {
        "percent": 0,
        "etaSeconds": 0,
        "step": 120,
        "totalSteps": 300,
        "loss": 0.123457,
    }
    # An earlier driver of this very try used 30, this one has held two GPUs for ten seconds.
    assert record["gpuSeconds"] == 50.0
    photos, class_images, train, generate, _ = record["stages"]
    assert photos["cached"] is True
    assert "startTime" not in photos
    assert class_images | {"gpuSeconds": 4.0} == {
        "name": "classImages",
        "state": "Succeeded",
        "startTime": "2026-03-01T12:00:02Z",
        "endTime": "2026-03-01T12:00:04Z",
        "done": 40,
        "total": 40,
        "unit": "images",
        "cached": False,
        "gpuSeconds": 4.0,
    }
    assert (train["state"], train["gpuSeconds"]) == ("Running", 110.0)
    assert generate == {"name": "generate", "state": "Pending"}


def test_a_finished_job_tells_quality_outputs_and_what_was_chosen(assert_valid: Check) -> None:
    record = training()
    record.note(Event(EventKind.JOB_FINISHED, data=RESULT), at(60))
    told = record.to_json(at(90))
    assert_valid(told)
    assert told["state"] == "Succeeded"
    assert (told["progress"]["percent"], told["progress"]["etaSeconds"]) == (100, 0)
    assert told["gpuSeconds"] == 150.0
    assert told["quality"]["gapClosed"] == 0.78
    assert told["quality"]["summary"].startswith("The pictures look")
    assert told["outputs"] == {
        "folder": "jobs/rex-0a1b",
        "model": "jobs/rex-0a1b/model",
        "images": "jobs/rex-0a1b/images",
        "contactSheet": "jobs/rex-0a1b/contact-sheet.png",
        "report": "jobs/rex-0a1b/report.html",
        "digest": "b" * 64,
    }
    assert told["resolved"]["safetyChecker"] == "none"
    assert told["resolved"]["classImages"] == 40
    assert told["resolved"]["trainingSteps"] == 300


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (UserError("no photos", field="spec.subject.photos", reason="NoPhotos"), "user"),
        (InfrastructureError("the disk is full", reason="WorkspaceNotWritable"), "infrastructure"),
        (BudgetError("2 of 2 GPU-hours used", field="spec.limits.gpuHours"), "budget"),
    ],
)
def test_a_failure_tells_whose_it_is(
    error: DreamBoothError, failure: str, assert_valid: Check
) -> None:
    record = training()
    record.note(failure_of(error), at(20))
    told = record.to_json(at(500))
    assert_valid(told)
    assert told["state"] == "Failed"
    assert told["failure"]["class"] == failure
    assert told["failure"]["reason"] == error.reason
    assert error.message in told["failure"]["message"]
    assert told["failure"].get("field") == error.field
    assert told["stages"][2]["state"] == "Failed"
    # The clock stopped when the job did.
    assert (told["gpuSeconds"], told["stages"][2]["gpuSeconds"]) == (70.0, 130.0)


def test_a_stopped_job_tells_that_it_was_interrupted_and_runs_nothing(assert_valid: Check) -> None:
    record = training()
    record.note(Event(EventKind.JOB_FAILED, data={"state": "Interrupted"}), at(20))
    told = record.to_json(at(20))
    assert_valid(told)
    assert told["state"] == "Interrupted"
    assert "failure" not in told
    assert {stage["state"] for stage in told["stages"]} == {"Succeeded", "Pending"}
    assert told["stages"][2]["done"] == 120


def test_the_first_ending_counts() -> None:
    record = training()
    record.note(Event(EventKind.JOB_FAILED, data={"state": "Interrupted"}), at(20))
    record.note(failure_of(UserError("too late")), at(21))
    assert record.to_json(at(22))["state"] == "Interrupted"


def test_a_budget_that_ends_training_leaves_the_model_to_be_had(assert_valid: Check) -> None:
    record = training()
    failed = failure_of(BudgetError("2 of 2 GPU-hours used"))
    failed.data["outputs"] = {"folder": "jobs/rex-0a1b", "model": "model"}
    record.note(failed, at(20))
    told = record.to_json(at(20))
    assert_valid(told)
    assert told["outputs"] == {"folder": "jobs/rex-0a1b", "model": "jobs/rex-0a1b/model"}


def test_a_loss_that_diverged_is_left_out(assert_valid: Check) -> None:
    record = training()
    record.note(progress(StageName.TRAIN, 121, 300, "steps", loss=math.nan), at(9))
    told = json.loads(record.encode(at(9)))
    assert_valid(told)
    assert told["progress"]["step"] == 121
    assert "loss" not in told["progress"]


def test_nothing_makes_a_record_too_large(assert_valid: Check) -> None:
    long = "ключ 🦖 " * 20_000
    record = ProgressRecord(attempt=1, gpus=1.0, started=BEGIN)
    texts = dict.fromkeys(
        ("token", "model", "modelRevision", "modelDigest", "safetyChecker", "encoder"), long
    )
    record.note(Event(EventKind.JOB_RESOLVED, data=texts), at(0))
    for stage in StageName:
        record.note(progress(stage, 1, 2, long, message=long), at(1))
    for _ in range(1000):
        record.note(Event(EventKind.WARNING, message=long), at(1))
    record.note(failure_of(UserError(long, field=long, reason="NoPhotos", remedy=long)), at(2))
    text = record.encode(at(2))
    assert len(text.encode()) <= MAX_BYTES
    assert_valid(json.loads(text))


EVENTS = st.builds(
    Event,
    kind=st.sampled_from(EventKind),
    stage=st.sampled_from([None, *StageName]),
    done=st.none() | st.integers(0, 10**9),
    total=st.none() | st.integers(0, 10**9),
    unit=st.none() | st.text(max_size=50),
    step=st.none() | st.integers(0, 10**9),
    loss=st.none() | st.floats(),
    rate=st.none() | st.floats(0.0, 1e6),
    resumed_from=st.none() | st.integers(0, 10**6),
    gpu_seconds=st.none() | st.floats(0.0, 1e9),
    cached=st.none() | st.booleans(),
    message=st.none() | st.text(max_size=2000),
    data=st.sampled_from([{}, RESULT, RESOLVED, *({"exitCode": code} for code in (2, 99, None))]),
)


@given(events=st.lists(EVENTS, max_size=20), planned=st.booleans())
def test_whatever_happens_in_whatever_order_the_record_is_valid(
    events: list[Event], planned: bool, assert_valid: Check
) -> None:
    record = ProgressRecord(attempt=3, gpus=2.0, started=BEGIN)
    if planned:
        record.plans(WorkPlan.of(a_job()))
    for second, event in enumerate(events):
        record.note(event, at(second))
    assert_valid(json.loads(record.encode(at(len(events)))))
