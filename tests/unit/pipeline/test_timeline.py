"""The timeline of a run: what it adds up to, and that it survives whatever happens."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreambooth import spans
from dreambooth.pipeline import timeline as module
from dreambooth.pipeline.progress import StageName
from dreambooth.pipeline.timeline import MAX_RUNS, Timeline, start_up_seconds
from dreambooth.spans import Activity, Recorder


class Clock:
    """A clock of the test's own."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    # Whatever ran in this process before: it may have drawn.
    monkeypatch.setattr(spans._recorder, "_named", False)
    spans.take()
    yield clock
    spans.take()


def read(file: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(file.read_text())["runs"]
    return runs


def row(activity: Activity, start: float, end: float) -> dict[str, Any]:
    return {"kind": activity.kind.value, "start": start, "end": end}


@pytest.mark.parametrize(
    ("rows", "seconds"),
    [
        ([], 0.0),
        ([row(Activity.DRAW, 0, 9)], 0.0),
        ([row(Activity.MODEL_LOAD, 0, 3)], 3.0),
        # Two that start at once take the time of one.
        ([row(Activity.MODEL_LOAD, 0, 3), row(Activity.RAY_START, 2, 5)], 5.0),
        # One that starts while another works costs nothing.
        ([row(Activity.MODEL_LOAD, 0, 3), row(Activity.DRAW, 1, 5)], 1.0),
        ([row(Activity.DRAW, 0, 5), row(Activity.TRAIN_START, 2, 7)], 2.0),
        # Saving is neither.
        ([row(Activity.CHECKPOINT, 0, 5), row(Activity.MODEL_LOAD, 4, 6)], 2.0),
    ],
)
def test_start_up_is_the_time_in_which_somebody_starts_and_nobody_works(
    rows: list[dict[str, Any]], seconds: float
) -> None:
    assert start_up_seconds(rows) == pytest.approx(seconds)


def test_seconds_count_from_the_first_that_was_recorded_and_stages_have_their_share(
    tmp_path: Path, clock: Clock
) -> None:
    spans.note(Activity.COMMAND_START, clock.now - 2.0, clock.now)
    timeline = Timeline(tmp_path / "timeline.json")
    timeline.enter(StageName.CLASS_IMAGES)
    worker = Recorder()
    worker.call("drawing", 99, "cuda")
    worker.note(Activity.MODEL_LOAD, clock.now, clock.now + 3.0)
    worker.note(Activity.DRAW, clock.now + 3.0, clock.now + 8.0)
    clock.now += 10.0
    spans.deliver(worker.take())
    timeline.leave(gpus=1.0)
    timeline.finish("Succeeded")
    [run] = read(tmp_path / "timeline.json")
    assert (run["seconds"], run["startUpSeconds"]) == (12.0, 5.0)
    [stage] = run["stages"]
    assert (stage["start"], stage["seconds"]) == (2.0, 10.0)
    assert (stage["workSeconds"], stage["startUpSeconds"]) == (5.0, 3.0)
    assert stage["gpuIdleShare"] == 0.5
    assert [(each["stage"], each["process"], each["activity"]) for each in run["spans"]] == [
        ("", "driver", "command start"),
        ("classImages", "drawing 1", "model load"),
        ("classImages", "drawing 1", "draw"),
    ]


def test_gaps_between_joined_spans_count_as_idle(tmp_path: Path, clock: Clock) -> None:
    timeline = Timeline(tmp_path / "timeline.json")
    timeline.enter(StageName.TRAIN)
    worker = Recorder()
    worker.call("training worker 0", device="cuda")
    for second in range(10):
        worker.note(Activity.DRAW, clock.now + second, clock.now + second + 0.6)
    spans.deliver(worker.take())
    clock.now += 10.0
    timeline.leave(gpus=1.0)
    timeline.finish("Succeeded")
    [run] = read(tmp_path / "timeline.json")
    assert len(run["spans"]) == 1
    assert run["stages"][0]["gpuIdleShare"] == pytest.approx(0.4)


def test_a_run_that_is_killed_leaves_what_was_known_when_its_last_stage_ended(
    tmp_path: Path, clock: Clock
) -> None:
    timeline = Timeline(tmp_path / "timeline.json")
    timeline.enter(StageName.PHOTOS)
    spans.note(Activity.PHOTOS, clock.now, clock.now + 1.0)
    clock.now += 1.0
    timeline.leave(gpus=0.0)
    timeline.enter(StageName.CLASS_IMAGES)
    [run] = read(tmp_path / "timeline.json")
    assert run["state"] == "Running"
    assert [stage["name"] for stage in run["stages"]] == ["photos"]


def test_a_long_stage_is_written_now_and_then(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "timeline.json"
    timeline = Timeline(file)
    timeline.enter(StageName.TRAIN)
    timeline.tick()
    assert not file.exists()
    spans.note(Activity.TRAINING_STEPS, clock.now, clock.now + 60.0)
    clock.now += 60.0
    timeline.tick()
    [run] = read(file)
    assert run["spans"][0]["seconds"] == 60.0
    assert run["stages"][0]["seconds"] == 60.0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"runs": 3}', '{"runs": [1, "two"]}'])
def test_what_is_no_timeline_is_replaced(tmp_path: Path, clock: Clock, content: str) -> None:
    file = tmp_path / "timeline.json"
    file.write_text(content)
    Timeline(file).finish("Succeeded")
    assert [run["state"] for run in read(file)] == ["Succeeded"]


def test_the_file_remembers_the_latest_runs_only(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "timeline.json"
    for number in range(MAX_RUNS + 3):
        Timeline(file).finish(f"run {number}")
    assert [run["state"] for run in read(file)] == [f"run {n}" for n in range(3, MAX_RUNS + 3)]


def test_a_disk_that_refuses_the_timeline_does_not_end_the_job(
    tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "file").write_text("no folder")
    Timeline(tmp_path / "file" / "timeline.json").finish("Succeeded")
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_job_of_many_processes_makes_a_bounded_file(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SPANS", 50)
    timeline = Timeline(tmp_path / "timeline.json")
    timeline.enter(StageName.CLASS_IMAGES)
    for number in range(200):
        worker = Recorder()
        worker.call("drawing", number + 1, "cpu")
        worker.note(Activity.MODEL_LOAD, clock.now, clock.now + 1.0)
        spans.deliver(worker.take())
    timeline.finish("Succeeded")
    [run] = read(tmp_path / "timeline.json")
    assert len(run["spans"]) == 50
