"""Jobs as users run them, and what their events and timelines say of speed."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.gpu.gpu_watch import GpuWatch
from bench.tables import ROOT
from dreambooth.workspace.atomic import read_json

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from dreambooth.cli.main import main; sys.exit(main())",
]
RAY_LOGS = Path("/tmp/ray/session_latest/logs")
PROGRESS_SECONDS = 2.0
MOST_LOGS, LAST_LINES = 6, 40
# Reports closer together than this belong to one batch of pictures.
BURST_SECONDS = 0.25


@dataclass(frozen=True)
class JobRun:
    """One run of a job.

    Attributes:
        seconds: From the command to its end.
        events: Seconds since the command, and the event.
        timeline: The run's part of `timeline.json`.
        training: `training.json` without the losses; they are in `losses`.
        by_stage: What the driver said of the GPUs in each stage.
    """

    seconds: float
    events: list[tuple[float, dict[str, Any]]]
    timeline: dict[str, Any]
    training: dict[str, Any]
    losses: list[float]
    by_stage: dict[str, dict[str, Any]]
    workspace: Path


def run_job(
    manifest: Path,
    workspace: Path,
    environment: Mapping[str, str] | None = None,
    listen: Callable[[int, dict[str, Any]], None] | None = None,
) -> JobRun:
    """Runs `dreambooth run` and listens.

    Args:
        manifest: Its file is called after the job.
        workspace: May have been used before.
        environment: Added to this process's own.
        listen: Is given the command's process id and every event as it comes.

    Raises:
        RuntimeError: If it fails.
    """
    watch = GpuWatch()
    narrator = _Narrator(workspace / "jobs" / manifest.stem / "timeline.json")
    command = [*COMMAND, "run", str(manifest), "--workspace", str(workspace), "--json"]
    events: list[tuple[float, dict[str, Any]]] = []
    with watch.watching():
        began = time.monotonic()
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                events.append((time.monotonic() - began, json.loads(line)))
                narrator.hear(*events[-1])
                if listen is not None:
                    listen(process.pid, events[-1][1])
            status = process.wait()
        seconds = time.monotonic() - began
    folder = workspace / "jobs" / manifest.stem
    if status != 0:
        _tell_what_is_known(folder)
        last = events[-1][1] if events else {}
        raise RuntimeError(f"the job ended with status {status}: {last.get('message', '')}")
    training = read_json(folder / "training.json") or {}
    runs = (read_json(folder / "timeline.json") or {}).get("runs") or [{}]
    return JobRun(
        seconds,
        events,
        runs[-1],
        {name: value for name, value in training.items() if name not in ("losses", "selection")},
        training.get("losses", []),
        {
            stage: watch.between(began + start, began + end)
            for stage, (start, end) in stage_times(events).items()
        },
        workspace,
    )


class _Narrator:
    """Prints how far a job is, as it goes: a run that is cut off shall say where its time went."""

    def __init__(self, timeline: Path) -> None:
        self._timeline = timeline
        self._told: set[tuple[Any, ...]] = set()
        self._last = 0.0

    def hear(self, at: float, event: dict[str, Any]) -> None:
        """Takes an event that came `at` seconds after the command."""
        kind = event["kind"]
        if kind == "stageProgress" and at - self._last < PROGRESS_SECONDS:
            return
        self._last = at
        words = [str(event[key]) for key in ("stage", "done", "total", "message") if key in event]
        print(f"   {at:6.1f} s {kind} {' '.join(words)}", flush=True)
        self.tell_spans()

    def tell_spans(self) -> None:
        """Prints what the timeline has since the last time."""
        runs = (read_json(self._timeline) or {}).get("runs") or [{}]
        for span in runs[-1].get("spans", []):
            key = (span["process"], span["activity"], span["start"], span["count"])
            if key not in self._told:
                self._told.add(key)
                print(
                    f"          {span['start']:6.1f}–{span['end']:6.1f} {span['process']}: "
                    f"{span['activity']} {span['seconds']:.1f} s × {span['count']}",
                    flush=True,
                )


def _tell_what_is_known(folder: Path) -> None:
    """Prints the end of a failed job's log and of what Ray's processes complained about."""
    logs = [folder / "log.txt"]
    with contextlib.suppress(OSError):
        session = RAY_LOGS.resolve()
        complaints = [file for file in session.glob("*.err") if file.stat().st_size]
        logs += sorted(complaints, key=lambda file: file.stat().st_mtime)[-MOST_LOGS:]
        logs += sorted((session / "train").glob("*.log"))[:MOST_LOGS]
    for file in logs:
        with contextlib.suppress(OSError):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            print(f"-- {file}", *lines[-LAST_LINES:], sep="\n", flush=True)


Events = Sequence[tuple[float, dict[str, Any]]]


def stage_times(events: Events) -> dict[str, tuple[float, float]]:
    """When each stage began and ended, in seconds since the command."""
    times: dict[str, tuple[float, float]] = {}
    for at, event in events:
        if event["kind"] == "stageStarted":
            times[event["stage"]] = (at, at)
        elif event["kind"] == "stageFinished":
            times[event["stage"]] = (times[event["stage"]][0], at)
    return times


def steady_pictures(events: Events, stage: str) -> float | None:
    """Pictures a second in the middle half of a stage.

    Files come some time after their pictures: the first ones late, the last ones all at once. None
    if there was no middle.
    """
    bursts = _bursts(events, stage)
    wanted = bursts[-1][1] if bursts else 0
    middle = [burst for burst in bursts if 0.25 * wanted <= burst[1] <= 0.75 * wanted]
    if len(middle) < 2:
        return None
    (first, some), (last, more) = middle[0], middle[-1]
    return (more - some) / (last - first)


# What a process that draws does once, before its first picture.
SET_UP = ("compile", "first run", "graph capture")


def drawn_a_second(run: JobRun, stage: str) -> float | None:
    """Pictures of a stage a second, on all GPUs together, once they are set up.

    From each process's first batch to its last, with its pauses but without its set-up; the slowest
    counts. None if nothing was drawn.
    """
    rows = [row for row in run.timeline.get("spans", []) if row["stage"] == stage]
    draws = [row for row in rows if row["activity"] == "draw"]
    seconds = [
        draw["end"]
        - draw["start"]
        - sum(
            row["seconds"]
            for row in rows
            if row["process"] == draw["process"]
            and row["activity"] in SET_UP
            and draw["start"] <= row["start"] <= draw["end"]
        )
        for draw in draws
    ]
    count = max((int(e.get("done", 0)) for _, e in _progress(run.events, stage)), default=0)
    return count / max(seconds) if seconds and count else None


def _bursts(events: Events, stage: str) -> list[tuple[float, int]]:
    """When each batch of pictures was on the disk, and how many there were then."""
    bursts: list[tuple[float, int]] = []
    for at, event in _progress(events, stage):
        done = int(event.get("done", 0))
        if done == 0:
            continue
        if bursts and at - bursts[-1][0] < BURST_SECONDS:
            bursts[-1] = (at, done)
        else:
            bursts.append((at, done))
    return bursts


def steady_steps(events: Events) -> float | None:
    """Milliseconds a step, the median between reports; None if there were too few.

    Checkpoints and measurements stand between few of the reports and vanish in the median.
    """
    reports = [(at, int(e["step"])) for at, e in _progress(events, "train") if e.get("step")]
    slopes = [
        (later - earlier) / (more - fewer) * 1e3
        for (earlier, fewer), (later, more) in itertools.pairwise(reports)
        if more > fewer
    ]
    return median(slopes) if slopes else None


def _progress(events: Events, stage: str) -> list[tuple[float, dict[str, Any]]]:
    return [
        (at, event)
        for at, event in events
        if event["kind"] == "stageProgress" and event["stage"] == stage
    ]


def figures(run: JobRun) -> dict[str, Any]:
    """What is kept of a run, JSON-able."""
    times = stage_times(run.events)
    pictures = steady_pictures(run.events, "classImages")
    resolved: dict[str, Any] = next(
        (event["data"] for _, event in run.events if event["kind"] == "jobResolved"), {}
    )
    return {
        "seconds": run.seconds,
        "stages": {
            stage: {"start": start, "end": end, **run.by_stage.get(stage, {})}
            for stage, (start, end) in times.items()
        },
        "timeline": {
            "startUpSeconds": run.timeline.get("startUpSeconds"),
            "stages": run.timeline.get("stages", []),
            "spans": run.timeline.get("spans", []),
        },
        "class_images_a_second": pictures,
        "step_ms": steady_steps(run.events),
        "training": run.training,
        "resolved": resolved.get("training", {}),
    }


def forget(workspace: Path, *names: str) -> None:
    """Removes parts of a workspace, so that the next job makes them anew."""
    for name in names:
        shutil.rmtree(workspace / name, ignore_errors=True)
