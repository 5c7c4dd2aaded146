"""The progress record is taken with care."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_operator.planner.record import Record, parse_record

GOOD: dict[str, Any] = {
    "version": 1,
    "attempt": 2,
    "state": "Running",
    "updateTime": "2026-03-01T12:00:00.123456Z",
    "startTime": "2026-03-01T11:00:00+01:00",
    "stage": "train",
    "stages": [
        {"name": "train", "state": "Running", "done": 5, "total": 10, "unit": "steps"},
        {"name": "photos", "state": "Succeeded", "gpuSeconds": 1.5, "cached": True},
    ],
    "progress": {"percent": 42, "etaSeconds": 130, "step": 120, "totalSteps": 300, "loss": 0.12},
    "resumedFromStep": 75,
    "gpuSeconds": 12.0,
    "quality": {"encoder": "dino-vits16", "subjectFidelity": 0.8},
    "outputs": {"folder": "jobs/rex"},
    "resolved": {"token": "sks", "safetyChecker": "none", "learningRate": 5e-6},
    "warnings": ["one"],
}


def parsed(content: object) -> Record | None:
    text = content if isinstance(content, str) else json.dumps(content)
    return parse_record({"data": {"progress.json": text}})


def good(**changes: Any) -> Record:
    record = parsed(GOOD | changes)
    assert record is not None
    return record


def test_a_good_record_is_taken_whole() -> None:
    record = good()
    assert (record.attempt, record.state, record.stage) == (2, "Running", "train")
    assert [stage["name"] for stage in record.stages] == ["photos", "train"]
    assert record.progress == GOOD["progress"]
    assert record.quality == GOOD["quality"]
    assert record.outputs == GOOD["outputs"]
    assert record.resolved == GOOD["resolved"]
    assert record.warnings == ("one",)
    assert record.start is not None
    assert record.start.hour == 10


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        json.dumps(GOOD)[:-20],
        "[]",
        "null",
        "[" * 100_000,
        '{"version": 1, "attempt": ' + "9" * 5000 + "}",
        json.dumps(GOOD | {"padding": "x" * 70_000}),
        GOOD | {"version": 2},
        GOOD | {"attempt": 0},
        GOOD | {"attempt": "2"},
        GOOD | {"state": "Dancing"},
        GOOD | {"updateTime": "yesterday"},
        GOOD | {"updateTime": "2026-02-31T12:00:00Z"},
        {key: value for key, value in GOOD.items() if key != "state"},
    ],
)
def test_what_is_no_record_is_none(content: object) -> None:
    assert parsed(content) is None


@pytest.mark.parametrize("config_map", [None, {}, {"data": None}, {"data": {"other": "x"}}])
def test_a_config_map_without_a_record_has_none(config_map: dict[str, Any] | None) -> None:
    assert parse_record(config_map) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("percent", 101),
        ("percent", 4.5),
        ("percent", True),
        ("etaSeconds", -1),
        ("step", 10**30),
        ("loss", "small"),
        ("loss", [1]),
    ],
)
def test_a_figure_out_of_bounds_is_dropped_and_the_rest_is_taken(field: str, value: object) -> None:
    record = good(progress=GOOD["progress"] | {field: value})
    assert record.progress == {key: v for key, v in GOOD["progress"].items() if key != field}


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_figure_that_json_does_not_know_is_dropped(figure: str) -> None:
    text = json.dumps(GOOD).replace('"loss": 0.12', f'"loss": {figure}')
    record = parsed(text)
    assert record is not None
    assert "loss" not in record.progress


def test_fields_that_status_does_not_have_are_dropped() -> None:
    record = good(quality={"subjectFidelity": 0.5, "evil": {"$ref": "x"}}, outputs=[1, 2])
    assert record.quality == {"subjectFidelity": 0.5}
    assert record.outputs == {}


def test_texts_are_cut_and_cleaned() -> None:
    record = good(
        stages=[{"name": "train", "state": "Running", "message": "a\x00b\ud800" + "x" * 2000}],
        warnings=["w" * 2000] * 15,
    )
    message = record.stages[0]["message"]
    assert message.startswith("a b x")
    assert len(message) == 1024
    assert len(record.warnings) == 1
    json.dumps(record.stages).encode()


def test_a_stage_told_twice_counts_once() -> None:
    stages = [{"name": "train", "state": "Pending"}, {"name": "train", "state": "Running"}] * 9
    assert good(stages=stages).stages == ({"name": "train", "state": "Running"},)


def test_a_failure_says_where_and_why() -> None:
    told = {"class": "user", "reason": "NoPhotos", "field": "spec.subject", "message": "None."}
    failure = good(state="Failed", failure=told).failure
    assert failure is not None
    assert (failure.kind, failure.reason) == ("user", "NoPhotos")
    assert failure.message == "spec.subject: None."


@pytest.mark.parametrize(
    "told",
    [
        {"class": "deadline", "reason": "X", "message": "y"},
        {"class": "user", "reason": "not a word", "message": "y"},
        "user",
        None,
    ],
)
def test_a_failure_that_is_none_is_dropped(told: object) -> None:
    assert good(state="Failed", failure=told).failure is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), ANYTHING))
def test_whatever_a_pod_writes_nothing_raises_and_all_of_it_can_be_sent(
    changes: dict[str, Any],
) -> None:
    record = parsed(GOOD | changes)
    if record is not None:
        for part in (record.progress, record.quality, record.outputs, list(record.stages)):
            assert json.loads(json.dumps(part, allow_nan=False).encode()) == part


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_no_text_is_a_crash(text: str) -> None:
    record = parse_record({"data": {"progress.json": text}})
    assert record is None or record.attempt >= 1
