"""What a process records of its own time."""

import json
import time

import pytest

from dreambooth.spans import (
    MAX_SPANS,
    Activity,
    Kind,
    Lane,
    Recorder,
    Span,
    process_age,
)


def lane(recorder: Recorder) -> Lane:
    [value] = recorder.take()
    return Lane.from_json(json.loads(json.dumps(value)))


def test_a_span_is_recorded_under_the_processs_name_and_is_taken_once() -> None:
    recorder = Recorder()
    recorder.call("drawing", 4711, "cuda")
    recorder.note(Activity.MODEL_LOAD, 100.0, 102.5)
    assert lane(recorder) == Lane(
        "drawing", 4711, "cuda", [Span("model load", 100.0, 102.5, 2.5, 1)]
    )
    assert recorder.take() == []


def test_parts_of_one_process_do_not_rename_it() -> None:
    recorder = Recorder()
    recorder.call("driver")
    recorder.call("drawing", 4711, "cuda")
    recorder.note(Activity.DRAW, 1.0, 2.0)
    assert lane(recorder).process == "driver"


def test_spans_that_follow_each_other_are_one_that_knows_how_many_and_how_long() -> None:
    recorder = Recorder()
    for start in (10.0, 11.1, 12.2):
        recorder.note(Activity.DRAW, start, start + 1.0)
    recorder.note(Activity.CHECKPOINT, 13.2, 14.0)
    recorder.note(Activity.DRAW, 14.0, 15.0)
    first, checkpoint, second = lane(recorder).spans
    assert (first.start, first.end, first.count) == (10.0, 13.2, 3)
    assert first.seconds == pytest.approx(3.0)
    assert (checkpoint.activity, second.count) == ("checkpoint", 1)


def test_a_process_that_works_for_ever_remembers_few_spans_and_all_of_its_time() -> None:
    recorder = Recorder()
    for number in range(5 * MAX_SPANS):
        activity = Activity.TRAINING_STEPS if number % 2 else Activity.CHECKPOINT
        recorder.note(activity, number * 10.0, number * 10.0 + 9.0)
    spans = lane(recorder).spans
    assert len(spans) == MAX_SPANS
    assert sum(span.count for span in spans) == 5 * MAX_SPANS
    assert sum(span.seconds for span in spans) == pytest.approx(5 * MAX_SPANS * 9.0)


def test_what_others_deliver_is_kept_apart_by_process() -> None:
    worker, driver = Recorder(), Recorder()
    driver.call("driver")
    for rank in (0, 1):
        worker = Recorder()
        worker.call(f"training worker {rank}", device="cuda")
        worker.note(Activity.TRAINING_STEPS, 1.0, 5.0)
        driver.deliver(worker.take())
    driver.note(Activity.RAY_STOP, 6.0, 7.0)
    assert [value["process"] for value in driver.take()] == [
        "driver",
        "training worker 0",
        "training worker 1",
    ]


def test_every_activity_counts_as_something() -> None:
    assert {activity.kind for activity in Activity} == set(Kind)
    assert Activity.MODEL_LOAD.kind is Kind.START_UP
    assert Activity.DRAW.kind is Kind.WORK
    assert Activity.CHECKPOINT.kind is Kind.KEEPING


def test_a_process_knows_how_old_it_is() -> None:
    age = process_age()
    assert 0 < age < time.clock_gettime(time.CLOCK_BOOTTIME)
    assert process_age() >= age
