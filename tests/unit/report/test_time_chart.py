"""The picture of where a run's time went."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dreambooth.report.html import render_report
from dreambooth.report.time_chart import MAX_ROWS, WIDTH, time_chart


def a_span(activity: str, kind: str, start: float, end: float, **changes: Any) -> dict[str, Any]:
    return {
        "stage": "train",
        "process": "training worker 0",
        "device": "cpu",
        "activity": activity,
        "kind": kind,
        "start": start,
        "end": end,
        "seconds": end - start,
        "count": 1,
    } | changes


def a_run(*spans: dict[str, Any]) -> dict[str, Any]:
    return {
        "state": "Succeeded",
        "seconds": 95.0,
        "startUpSeconds": 21.0,
        "stages": [
            {"name": "photos", "start": 1.0, "seconds": 0.5},
            {"name": "train", "start": 10.0, "seconds": 80.0},
        ],
        "spans": list(spans),
    }


RUN = a_run(
    a_span("command start", "startUp", 0.0, 1.0, stage="", process="driver"),
    a_span("model load", "startUp", 15.0, 20.0),
    a_span("training steps", "work", 20.0, 80.0),
    a_span("checkpoint", "keeping", 80.0, 80.001),
)


def bars(svg: str) -> list[tuple[str, float, float]]:
    found = re.findall(r'<rect class="(\w+)" x="([\d.]+)" width="([\d.]+)"', svg)
    return [(kind, float(x), float(x) + float(width)) for kind, x, width in found]


def test_every_activity_is_a_bar_in_proportion_to_its_time() -> None:
    command, load, steps, checkpoint = bars(time_chart(RUN))
    assert [each[0] for each in (command, load, steps, checkpoint)] == [
        "startUp", "startUp", "work", "keeping",
    ]  # fmt: skip
    scale = (steps[2] - steps[1]) / 60.0
    assert load[2] - load[1] == pytest.approx(5.0 * scale, abs=0.2)
    assert steps[1] == pytest.approx(load[2], abs=0.2)
    # However short, it can be seen.
    assert checkpoint[2] > checkpoint[1]
    assert all(right <= WIDTH for _, _, right in bars(time_chart(RUN)))


def test_it_says_in_words_what_the_bars_show() -> None:
    chart = time_chart(RUN)
    for words in (
        "1 min 35 s in all, 21 s of them in which processes started or stopped",
        "training steps: 1 min (Training)",
        "driver",
        "training worker 0",
        "starting and stopping",
    ):
        assert words in chart
    # In the table what took longest comes first.
    assert chart.index('<th scope="row">training steps') < chart.index('<th scope="row">model load')


def test_a_run_that_did_nothing_has_no_picture() -> None:
    assert time_chart(a_run()) == ""
    assert time_chart(RUN | {"stages": []}) == ""


def test_many_processes_are_counted_instead_of_shown() -> None:
    run = a_run(*(a_span("draw", "work", 1, 2, process=f"drawing {n}") for n in range(50)))
    chart = time_chart(run)
    assert len(bars(chart)) == MAX_ROWS
    assert f"{50 - MAX_ROWS} more processes" in chart


def test_names_in_the_file_are_escaped() -> None:
    evil = '<script>alert("x")</script>'
    run = a_run(a_span(evil, evil, 1.0, 2.0, stage=evil, process=evil))
    assert "<script" not in time_chart(run)
    assert "&lt;script" in time_chart(run)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (json.dumps({"runs": [RUN]}), True),
        # A run that found all done says nothing new.
        (json.dumps({"runs": [RUN, RUN | {"stages": [], "spans": []}]}), True),
        ('{"runs": [', False),
        ("[]", False),
        (None, False),
    ],
)
def test_the_report_has_the_latest_run_that_worked(
    tmp_path: Path, content: str | None, shown: bool
) -> None:
    if content is not None:
        (tmp_path / "timeline.json").write_text(content)
    page = render_report({"name": "rex"}, tmp_path, tmp_path)
    assert ("Where the time went" in page) is shown
