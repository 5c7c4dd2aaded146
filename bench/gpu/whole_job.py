"""The notebook's whole job through `dreambooth run`: 200 class images, 400 steps, 5 pictures."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.gpu.jobs import JobRun, figures, forget, run_job, stage_times
from bench.gpu.scratch import CLASS_TEMPLATE, PROMPT, scratch, write_job

# A first one that finds nothing compiled, and others; `--runs` says how many in all.
RUNS_VARIABLE = "DREAMBOOTH_BENCH_RUNS"
RUNS = 3
COMPARED_LOSSES = 20


def spec(tiny: bool, *, method: str = "full", workers: int = 1) -> dict[str, Any]:
    """The manifest's part that says what is done, as the notebook does it."""
    steps = 3 if tiny else 50
    return {
        "classImages": {
            "count": 10 if tiny else 200,
            "prompt": CLASS_TEMPLATE,
            "steps": steps,
            "guidance": 7.5,
        },
        "training": {
            "method": method,
            "steps": 12 if tiny else 400,
            "batchSize": 2,
            "learningRate": 5e-6 if method == "full" else 1e-4,
            "textEncoder": True,
            "keep": "last",
        },
        "generation": {"prompts": [PROMPT], "imagesPerPrompt": 5, "steps": steps, "guidance": 7.5},
        "evaluation": {"prompts": [PROMPT], "imagesPerPrompt": 2},
        "cluster": {"workers": workers},
    }


def job_workspace(tiny: bool) -> Path:
    """Where whole jobs run."""
    return scratch(tiny) / "workspace"


def compiled_in(workspace: Path) -> dict[str, str]:
    """Environment in which kernels that are compiled are kept on `workspace`."""
    return {"TRITON_CACHE_DIR": str(workspace / "cache" / "compile" / "triton")}


def whole_jobs(tiny: bool) -> Iterator[dict[str, Any]]:
    """The first run finds no compiled kernel, the others those of the first; all draw anew."""
    workspace = job_workspace(tiny)
    shutil.rmtree(workspace, ignore_errors=True)
    environment = compiled_in(workspace)
    for number in range(int(os.environ.get(RUNS_VARIABLE, RUNS))):
        forget(workspace, "cache/class-images")
        manifest = write_job(tiny, f"job-{number}", spec(tiny))
        row: dict[str, Any] = {"cache": "warm" if number else "cold"}
        try:
            run = run_job(manifest, workspace, environment)
        except RuntimeError as error:
            row["failed"] = str(error)
        else:
            row |= {**figures(run), **_times(run)}
        print(f"whole job, {_words(row)}", flush=True)
        yield row


def _times(run: JobRun) -> dict[str, Any]:
    times = stage_times(run.events)
    count = 0
    for _, event in run.events:
        if event["kind"] == "stageProgress" and event["stage"] == "classImages":
            count = max(count, int(event.get("done", 0)))
    return {
        "class_images": count,
        "class_images_on_disk_s": times["classImages"][1],
        "pictures_on_disk_s": times["generate"][1],
        "losses": run.losses[:COMPARED_LOSSES],
        "last_losses": run.losses[-3:],
    }


def _words(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{row['cache']} cache: FAILED {row['failed']}"
    stages = ", ".join(
        f"{name} {each['end'] - each['start']:.1f}" for name, each in row["stages"].items()
    )
    rate, step = row["class_images_a_second"], row["step_ms"]
    return (
        f"{row['cache']} cache: {row['class_images']} class images on disk after "
        f"{row['class_images_on_disk_s']:.1f} s, pictures after {row['pictures_on_disk_s']:.1f} s, "
        f"all {row['seconds']:.1f} s (stages: {stages}); steady {rate or 0:.2f} images/s, "
        f"{step or 0:.1f} ms a step; timeline {row['timeline']['stages']}"
    )
