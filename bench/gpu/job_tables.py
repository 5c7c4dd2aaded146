"""The tables about the notebook's whole job, which each of our own stands beside.

A job's time is the host's as much as the GPU's, so jobs of several machines are kept in
bench/results/gpu_jobs.json, each with what the notebook's loops took in the same run.
"""

import subprocess
from statistics import median
from typing import Any

from bench.gpu.tables import DOCUMENT, Lines, Results, times
from bench.machine import in_words
from bench.tables import ROOT, replace_between, table
from dreambooth.workspace.atomic import read_json, write_json

JOBS = ROOT / "bench" / "results" / "gpu_jobs.json"
# What has to be measured together.
SECTIONS = ("limit", "notebook-generation", "notebook-training", "job")
# Of a row of the section `job`, what is kept.
KEPT = (
    "cache",
    "class_images",
    "class_images_a_second",
    "class_images_on_disk_s",
    "pictures_on_disk_s",
    "seconds",
    "stages",
    "step_ms",
)
CLASS_IMAGES, STEPS, SAMPLES = 200, 400, 5


def is_whole(names: list[str]) -> bool:
    """Whether sections of these names, joined by + or not, are all that a job stands beside."""
    return set(SECTIONS) <= set("+".join(names).split("+"))


def add_job(results: Results) -> None:
    """Adds the job in `results` as the newest, unless something of it failed."""
    run = {name: results[name] for name in SECTIONS}
    if any("failed" in found for found in run.values()):
        return
    run["job"] = [_kept(row) for row in run["job"] if "seconds" in row]
    known = read_json(JOBS) or {"runs": []}
    write_json(JOBS, {"runs": [*known["runs"], {**run, "commit": _commit()}]})


def write_job_tables() -> None:
    """Puts the figures into docs/performance.md."""
    for name, text in job_tables().items():
        replace_between(DOCUMENT, name, text)


def job_tables() -> dict[str, str]:
    """The tables by the name of their markers: the newest job, and all of them."""
    runs = (read_json(JOBS) or {}).get("runs", [])
    if not runs:
        return {}
    newest = runs[-1]
    on = in_words(newest["limit"]["machine"])
    caption = f"Measured by `make bench-gpu` on one {on}; commit {newest['commit']}."
    return {
        "gpu-job": f"{table(job_lines(newest))}\n{caption}\n",
        "gpu-jobs": table(jobs_lines(runs)),
    }


def job_lines(run: Results) -> Lines:
    """The notebook's whole job, from the command to pictures on the disk."""
    notebook = notebook_job(run["notebook-generation"], run["notebook-training"])
    lines = [["", "Notebook", "Ours, cold", "", "Ours, warm", ""]]
    groups = _by_cache(run["job"])
    for title, key, theirs in (
        ("200 class images on the disk", "class_images_on_disk_s", notebook["class_images"]),
        ("5 pictures of the subject on the disk", "pictures_on_disk_s", notebook["all"]),
    ):
        lines.append([title, f"{theirs:.0f} s", *_ours(groups, key, theirs)])
    line = ["… and evaluated, the command ended", "–"]
    for rows in groups:
        line += [f"{median(row['seconds'] for row in rows):.1f} s" if rows else "–", ""]
    lines.append(line)
    for stage in ("photos", "classImages", "train", "generate", "evaluate"):
        line = [f"stage {stage}: time, share in which the GPU is idle", "–"]
        for rows in groups:
            line += _stage(rows, stage)
        lines.append(line)
    return lines


def jobs_lines(runs: list[Results]) -> Lines:
    """The whole job on several machines, each beside the notebook's loops in the same run."""
    lines = [
        [
            "GPU",
            "Commit",
            "Notebook: a picture, a step, all",
            "Ours in a job: a picture, a step",
            "all, cold",
            "",
            "warm",
            "",
        ]
    ]
    for run in runs:
        generation, training = run["notebook-generation"], run["notebook-training"]
        theirs = notebook_job(generation, training)["all"]
        lines.append(
            [
                run["limit"]["machine"]["gpu"],
                run["commit"],
                f"{generation['seconds_a_picture']:.2f} s, {training['ms']:.0f} ms, {theirs:.0f} s",
                f"{_picture_s(run['job']):.3f} s, {_step_ms(run['job']):.1f} ms",
                *_ours(_by_cache(run["job"]), "pictures_on_disk_s", theirs),
            ]
        )
    return lines


def _commit() -> str:
    """Of the working tree; a dash where there is no repository."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "–"


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    stages = row["timeline"]["stages"]
    return {**{key: row.get(key) for key in KEPT}, "timeline": {"stages": stages}}


def _picture_s(jobs: list[dict[str, Any]]) -> float:
    return median(1 / float(row["class_images_a_second"]) for row in jobs)


def _step_ms(jobs: list[dict[str, Any]]) -> float:
    return median(float(row["step_ms"]) for row in jobs)


def _by_cache(jobs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Those with cold caches, and those with warm ones."""
    return [[row for row in jobs if row["cache"] == cache] for cache in ("cold", "warm")]


def _ours(groups: list[list[dict[str, Any]]], key: str, theirs: float) -> list[str]:
    """Of each group, the median of `key` and how many times as fast that is."""
    cells = []
    for rows in groups:
        spent = median(row[key] for row in rows) if rows else None
        cells += ["–", ""] if spent is None else [f"{spent:.1f} s", times(theirs, spent)]
    return cells


def notebook_job(generation: dict[str, Any], training: dict[str, Any]) -> dict[str, float]:
    """The notebook's job from what its loops take; Ray, photos and saving are given to it."""
    drawing = generation["seconds_a_picture"]
    first = generation["first_picture_s"]
    class_images = generation["load_s"] + first + (CLASS_IMAGES - 1) * drawing
    steps = training["load_s"] + STEPS * training["ms"] / 1e3
    samples = generation["load_s"] + first + (SAMPLES - 1) * drawing
    return {"class_images": class_images, "all": class_images + steps + samples}


def _stage(rows: list[dict[str, Any]], stage: str) -> list[str]:
    spent = [r["stages"][stage]["end"] - r["stages"][stage]["start"] for r in rows]
    idle = [
        each["gpuIdleShare"]
        for row in rows
        for each in row["timeline"]["stages"]
        if each["name"] == stage and "gpuIdleShare" in each
    ]
    share = f"{median(idle):.0%}" if idle else ""
    return [f"{median(spent):.1f} s" if spent else "–", share]
