"""What a job leaves for people who come later."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dreambooth.pipeline.journal import WRITE_INTERVAL_SECONDS, Journal
from dreambooth.pipeline.progress import Event, EventKind, StageName
from dreambooth.workspace.layout import JobFolder

TRAIN = StageName.TRAIN


class Kept:
    """A journal whose time the test moves."""

    def __init__(self, root: Path) -> None:
        self.folder, self.now = JobFolder(root), 100.0
        self.note = Journal(self.folder, lambda: self.now)

    @property
    def progress(self) -> dict[str, Any]:
        def refuse(name: str) -> None:
            raise ValueError(f"{name} is no JSON")

        text = self.folder.progress.read_text()
        value: dict[str, Any] = json.loads(text, parse_constant=refuse)
        return value

    @property
    def log(self) -> list[str]:
        return self.folder.log.read_text().splitlines()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def step(number: int, loss: float = 0.5, message: str | None = None) -> Event:
    return Event(
        EventKind.STAGE_PROGRESS,
        stage=TRAIN,
        done=number,
        total=12,
        unit="steps",
        step=number,
        loss=loss,
        message=message,
    )


def test_the_progress_record_says_how_far_the_running_stage_is(kept: Kept) -> None:
    kept.note(Event(EventKind.STAGE_STARTED, stage=TRAIN))
    kept.now += WRITE_INTERVAL_SECONDS
    kept.note(step(5))
    told = kept.progress
    assert (told["state"], told["stage"]) == ("Running", "train")
    stage = told["stages"]["train"]
    assert {key: stage[key] for key in ("state", "done", "total", "unit", "step", "loss")} == {
        "state": "Running",
        "done": 5,
        "total": 12,
        "unit": "steps",
        "step": 5,
        "loss": 0.5,
    }
    assert told["updated"].endswith("Z")


def test_steps_are_written_now_and_then_and_changes_of_state_at_once(kept: Kept) -> None:
    kept.note(Event(EventKind.STAGE_STARTED, stage=TRAIN))
    kept.note(step(1))
    assert "done" not in kept.progress["stages"]["train"]
    kept.now += WRITE_INTERVAL_SECONDS
    kept.note(step(2))
    kept.note(step(3))
    assert kept.progress["stages"]["train"]["done"] == 2
    kept.note(Event(EventKind.STAGE_FINISHED, stage=TRAIN, cached=False, seconds=4.0))
    stage = kept.progress["stages"]["train"]
    assert (stage["state"], stage["done"], stage["seconds"]) == ("Done", 3, 4.0)


def test_a_loss_that_is_no_number_leaves_a_record_that_every_reader_of_json_can_read(
    kept: Kept,
) -> None:
    kept.now += WRITE_INTERVAL_SECONDS
    kept.note(step(1, loss=math.nan))
    assert kept.progress["stages"]["train"]["loss"] is None


def test_warnings_and_resolved_settings_stay_in_the_record(kept: Kept) -> None:
    kept.note(Event(EventKind.JOB_RESOLVED, data={"token": "sks"}))
    photos = StageName.PHOTOS
    kept.note(Event(EventKind.WARNING, stage=photos, message="a.png is small"))
    kept.note(Event(EventKind.WARNING, stage=photos, message="b.png is small"))
    assert kept.progress["resolved"] == {"token": "sks"}
    assert kept.progress["warnings"] == ["a.png is small", "b.png is small"]


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (Event(EventKind.JOB_FINISHED, data={"quality": {"encoder": "e"}}), "Succeeded"),
        (Event(EventKind.JOB_FAILED, message="m", data={"exitCode": 2}), "Failed"),
        (
            Event(EventKind.JOB_FAILED, message="m", data={"state": "Interrupted"}),
            "Interrupted",
        ),
    ],
)
def test_the_end_is_in_the_record(kept: Kept, event: Event, state: str) -> None:
    kept.note(event)
    assert kept.progress["state"] == state
    if event.kind is EventKind.JOB_FINISHED:
        assert kept.progress["quality"] == {"encoder": "e"}
    else:
        assert kept.progress["error"]["message"] == "m"


def test_the_log_has_a_line_for_what_a_person_would_want_to_know_and_keeps_those_of_earlier_runs(
    kept: Kept,
) -> None:
    kept.note(Event(EventKind.JOB_STARTED, message="job rex"))
    kept.note(Event(EventKind.STAGE_FINISHED, stage=StageName.PHOTOS, cached=True, seconds=1.0))
    kept.now += WRITE_INTERVAL_SECONDS
    kept.note(step(1))
    kept.now += WRITE_INTERVAL_SECONDS
    kept.note(step(3, message="going on from step 3"))
    kept.note(Event(EventKind.JOB_FAILED, message="two\nlines"))
    Kept(kept.folder.root).note(Event(EventKind.JOB_STARTED, message="job rex"))
    lines = [line.partition(" ")[2] for line in kept.log]
    assert lines == [
        "jobStarted job rex",
        "stageFinished photos (already done)",
        "stageProgress train going on from step 3",
        "jobFailed two | lines",
        "jobStarted job rex",
    ]


def test_a_message_within_a_stage_is_logged_even_right_after_another_write(kept: Kept) -> None:
    kept.note(Event(EventKind.STAGE_STARTED, stage=TRAIN))
    kept.note(step(6, message="going on from step 6"))
    assert kept.log[-1].endswith("stageProgress train going on from step 6")
