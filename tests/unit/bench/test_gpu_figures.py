"""What the GPU benches make of events and figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import job_tables, scaling_tables, tables
from bench.gpu.jobs import JobRun, drawn_a_second, stage_times, steady_pictures, steady_steps
from bench.tables import ROOT, between
from dreambooth.workspace.atomic import read_json

MACHINE: dict[str, Any] = {
    "processor": "a CPU",
    "cores": 2,
    "gpu": "a GPU",
    "python": "3.12",
    "versions": {},
}


def progress(stage: str, **values: Any) -> dict[str, Any]:
    return {"kind": "stageProgress", "stage": stage, **values}


def test_a_stage_lasts_from_its_first_event_to_its_last() -> None:
    events = [
        (1.0, {"kind": "stageStarted", "stage": "train"}),
        (2.0, progress("train", step=1)),
        (5.5, {"kind": "stageFinished", "stage": "train"}),
    ]
    assert stage_times(events) == {"train": (1.0, 5.5)}


def test_the_rate_of_pictures_leaves_out_what_comes_before_the_first_batch_is_done() -> None:
    events = [(0.0, progress("classImages", done=0))]
    for batch, at in enumerate((30.0, 34.0, 38.0)):
        for place in range(16):
            done = 16 * batch + place + 1
            events.append((at + 0.01 * place, progress("classImages", done=done)))
    assert steady_pictures(events, "classImages") == pytest.approx(4.0)


def test_one_batch_of_pictures_has_no_steady_rate() -> None:
    events = [(3.0, progress("classImages", done=0)), (9.0, progress("classImages", done=8))]
    assert steady_pictures(events, "classImages") is None


def test_the_slowest_gpu_counts_and_setting_up_does_not() -> None:
    def row(process: str, activity: str, start: float, end: float) -> dict[str, Any]:
        seconds = end - start
        known = {"stage": "classImages", "process": process, "activity": activity}
        return {**known, "start": start, "end": end, "seconds": seconds}

    spans = [
        row("drawing 1", "imports", 0.0, 9.0),
        row("drawing 1", "draw", 10.0, 30.0),
        row("drawing 1", "graph capture", 11.0, 13.0),
        row("drawing 2", "draw", 12.0, 36.0),
        row("drawing 2", "compile", 12.0, 16.0),
        {**row("drawing 2", "draw", 50.0, 90.0), "stage": "generate"},
    ]
    events = [(20.0, progress("classImages", done=60)), (36.0, progress("classImages", done=80))]
    run = JobRun(40.0, events, {"spans": spans}, {}, [], {}, Path())
    assert drawn_a_second(run, "classImages") == pytest.approx(4.0)
    assert drawn_a_second(run, "train") is None


def test_a_pause_between_two_reports_does_not_change_the_time_of_a_step() -> None:
    at, events = 10.0, []
    for step in range(10, 110, 10):
        at += 0.5 if step != 50 else 9.0
        events.append((at, progress("train", step=step, loss=1.0)))
    assert steady_steps(events) == pytest.approx(50.0)


def test_reports_that_repeat_a_step_after_a_recovery_are_left_out() -> None:
    events = [(0.0, progress("train", step=20)), (9.0, progress("train", step=10))]
    assert steady_steps(events) is None


def test_the_summary_compares_with_the_notebook_and_the_limit() -> None:
    results = {
        "limit": {"machine": MACHINE, "picture_s": 0.1, "step_ms": 20.0, "image_trained_ms": 5.0},
        "notebook-generation": {"seconds_a_picture": 2.0, "peak_gib": 4.0},
        "notebook-training": {"ms": 180.0, "peak_gib": 20.0},
        "stream": {"seconds_a_picture": 0.2, "peak_gib": 8.0},
        "training": [{"method": "full", "pairs": 2, "ms": 60.0, "peak_gib": 22.0}],
    }
    rows = {line[0]: line[1:] for line in tables.summary(results)}
    assert rows["a picture: `dreambooth`"] == ["0.200 s", "10.0×", "50%", "8.0 GiB"]
    assert rows["a step: `dreambooth`"] == ["60.0 ms", "3.0×", "33%", "22.0 GiB"]


def test_the_notebooks_job_is_its_loops_multiplied_and_its_loading() -> None:
    generation = {"seconds_a_picture": 2.0, "first_picture_s": 5.0, "load_s": 3.0}
    job = job_tables.notebook_job(generation, {"ms": 100.0, "load_s": 4.0})
    assert job["class_images"] == pytest.approx(3 + 5 + 199 * 2)
    assert job["all"] == pytest.approx(job["class_images"] + 4 + 40 + 3 + 5 + 4 * 2)


SENT = {"engine": {"allReduce": {"bytes": 2_000_000_000}}}
SCALING: dict[str, Any] = {
    "machine": MACHINE,
    "link": {"bus": 200e9},
    "one": {
        "ms": 50.0,
        "images_a_second": 5.0,
        "pictures_a_second": 4.0,
        "losses": [1.0, 2.0, 3.0],
    },
    "full": {
        "ms": 52.0,
        "training": SENT,
        "images_a_second": 9.8,
        "pictures_a_second": 7.9,
        "peak_gib": 17.0,
    },
    "same-batch": {"ms": 30.0, "training": SENT, "losses": [1.01, 2.0]},
    "four": {"ms": 54.0, "training": SENT, "images_a_second": 19.0},
}


def test_jobs_of_several_machines_stand_beside_the_notebooks_of_the_same_run() -> None:
    run = {
        "limit": {"machine": {"gpu": "a GPU"}},
        "commit": "1234567",
        "notebook-generation": {"seconds_a_picture": 2.0, "first_picture_s": 2.0, "load_s": 0.0},
        "notebook-training": {"ms": 225.0, "load_s": 0.0},
        "job": [
            {
                "cache": "cold",
                "pictures_on_disk_s": 125.0,
                "class_images_a_second": 5.0,
                "step_ms": 40.0,
            }
        ],
    }
    _, line = job_tables.jobs_lines([run])
    assert line[:4] == ["a GPU", "1234567", "2.00 s, 225 ms, 500 s", "0.200 s, 40.0 ms"]
    assert line[4:] == ["125.0 s", "4.0×", "–", ""]


def test_a_job_is_kept_with_what_was_measured_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_tables, "JOBS", tmp_path / "jobs.json")
    row = {
        "seconds": 9.0,
        "cache": "warm",
        "losses": [1.0],
        "timeline": {"stages": [], "spans": []},
    }
    results = {name: {"ms": 1.0} for name in job_tables.SECTIONS} | {"job": [row], "sdxl": []}
    job_tables.add_job({**results, "notebook-training": {"failed": "no memory"}})
    assert not job_tables.JOBS.exists()
    job_tables.add_job(results)
    job_tables.add_job(results)
    first, second = json.loads(job_tables.JOBS.read_text())["runs"]
    assert first == second and set(first) == {*job_tables.SECTIONS, "commit"}
    assert first["job"][0]["seconds"] == 9.0 and "losses" not in first["job"][0]
    assert first["job"][0]["timeline"] == {"stages": []}


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        (["limit+notebook-generation+notebook-training", "job"], True),
        (["limit", "job"], False),
    ],
)
def test_a_job_needs_the_notebooks_loops_of_the_same_run(names: list[str], whole: bool) -> None:
    assert job_tables.is_whole(names) is whole


def test_the_share_of_the_all_reduce_that_shows_is_what_a_step_is_longer_for_it() -> None:
    # Two workers send each byte once over their link: 10 ms alone, of which 2 show.
    share = scaling_tables.hidden_share(SCALING, 50.0, SCALING["full"])
    assert share == pytest.approx(0.2)


def test_several_gpus_are_compared_with_one_by_what_they_do_a_second() -> None:
    rows = {line[0]: line[1:] for line in scaling_tables.scaling_lines(SCALING)}
    full = ["50.0 ms", "52.0 ms", "1.92×", "20%", "17.0 GiB"]
    assert rows["two GPUs: full, 2 pairs each"] == full
    assert rows["two GPUs: full, 1 pair each, 2 on one"][:3] == ["50.0 ms", "30.0 ms", "1.67×"]
    assert rows["four GPUs: full, 2 pairs each"][2:4] == ["3.70×", ""]
    assert rows["two GPUs: class images"][2] == "1.96×"
    assert rows["two GPUs: pictures of the subject"][2] == "1.98×"
    # What was not measured is left out.
    assert "four GPUs: pictures of the subject" not in rows
    assert not any("LoRA" in title for title in rows)


def test_losses_of_two_workers_are_compared_with_those_of_one() -> None:
    assert scaling_tables.losses_apart(SCALING) == pytest.approx(0.01)
    assert scaling_tables.losses_apart({"same-batch": SCALING["same-batch"]}) is None


def test_the_plan_stands_beside_what_was_measured() -> None:
    lines = {line[0]: line for line in scaling_tables.plan_lines(SCALING)}
    assert lines["GPUs"][-1] == "full, measured"
    assert (lines["2"][1], lines["2"][-1]) == ("52 ms, 96%", "52 ms, 96%")
    assert (lines["4"][-1], lines["8"][-1]) == ("54 ms, 93%", "")


def test_the_plan_hides_behind_the_backward_pass_what_there_is_time_for() -> None:
    training = scaling_tables.Training("full", 50.0, 2e9, 0.2)
    fast = scaling_tables.planned_ms(training, 2, 200e9)
    assert fast == pytest.approx(50.0 + 0.2 * 10.0)
    slow = scaling_tables.planned_ms(training, 2, 3.125e9)
    assert slow == pytest.approx(50.0 + 640.0 - scaling_tables.OVERLAP_SHARE * 50.0)


def test_the_plan_hides_weights_beside_an_update_that_gets_shorter() -> None:
    training = scaling_tables.Training("full", 50.0, 2e9, 0.2, shared=True)
    assert scaling_tables.planned_ms(training, 2, 200e9) == pytest.approx(50.0 + 0.2 * 10.0)
    update = scaling_tables.UPDATE_SHARE * 50.0
    gradients = 320.0 - scaling_tables.OVERLAP_SHARE * 50.0
    weights = 320.0 - update / 2
    slow = scaling_tables.planned_ms(training, 2, 3.125e9)
    assert slow == pytest.approx(50.0 + gradients + weights - update / 2)


def test_figures_of_another_machine_say_so() -> None:
    old = {"limit": {"machine": MACHINE}, "sdxl": [1], "job": [2]}
    new = {"limit": {"machine": {**MACHINE, "gpu": "another GPU"}}, "job": [3]}
    both = tables.merged(old, new)
    assert (both["job"], both["sdxl"], both["machines"]) == ([3], [1], {"sdxl": MACHINE})
    newest = {"limit": {"machine": MACHINE}}
    assert tables.merged(both, newest)["machines"]["sdxl"] == MACHINE
    assert "`--section sdxl` measures: on one a GPU" in tables._elsewhere(both, "gpu-families")
    assert tables._elsewhere(both, "gpu-job") == ""


def test_nothing_is_planned_without_measurements() -> None:
    assert scaling_tables.scaling_tables({}) == {}
    assert tables.gpu_tables({}) == {}


def test_the_document_shows_the_figures_that_were_measured() -> None:
    results = ROOT / "bench" / "results"
    one_gpu = read_json(results / "gpu.json") or {}
    scaling = read_json(results / "gpu_scaling.json") or {}
    shown = tables.gpu_tables(one_gpu) | scaling_tables.scaling_tables(scaling)
    shown |= job_tables.job_tables()
    assert {name: between(tables.DOCUMENT, name) for name in shown} == shown
