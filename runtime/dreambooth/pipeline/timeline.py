"""`timeline.json`: what every process of a job did, and when, run by run.

What is known is on the disk whenever a stage ends and every few seconds between, so that a run that
is killed leaves a timeline too. The next run adds its own. Nothing here can end a job: a disk that
refuses the timeline refuses the job's own records as well, and those say so.
"""

import contextlib
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dreambooth import spans
from dreambooth.errors import InfrastructureError
from dreambooth.pipeline.progress import StageName
from dreambooth.spans import Activity, Kind, Lane, Span
from dreambooth.workspace.atomic import read_json, write_json

VERSION = 1
# Runs that the file remembers, the latest.
MAX_RUNS = 10
# Spans of one run; far more than any job makes, since near ones are joined.
MAX_SPANS = 4000
WRITE_INTERVAL_SECONDS = 5.0

Interval = tuple[float, float]


@dataclass
class _StageTime:
    name: str
    start: float
    end: float | None = None
    gpus: float = 0.0


class Timeline:
    """Gathers the spans of one run, stage by stage."""

    def __init__(self, file: Path) -> None:
        """Adds a run to what `file` has of earlier ones; it began with what is recorded by now."""
        self._file = file
        spans.call_this_process("driver")
        known = read_json(file)
        runs = known.get("runs") if isinstance(known, dict) else None
        self._earlier = (
            [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []
        )
        self._state = "Running"
        self._stages: list[_StageTime] = []
        # By stage and process.
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._numbers: dict[str, list[int]] = {}
        self._kept, self._written = 0, time.monotonic()
        self._gather()
        starts = [span.start for lane in self._lanes.values() for span in lane.spans]
        self._began = min([time.time(), *starts])

    def enter(self, stage: StageName) -> None:
        """What is recorded from now on belongs to `stage`."""
        self._gather()
        self._stages.append(_StageTime(stage.value, time.time()))

    def leave(self, gpus: float) -> None:
        """The stage is over; it held `gpus` GPUs."""
        self._gather()
        self._stages[-1].end = time.time()
        self._stages[-1].gpus = gpus
        self.save()

    def tick(self) -> None:
        """Writes what is known if that was not done for a while."""
        if time.monotonic() - self._written >= WRITE_INTERVAL_SECONDS:
            self._gather()
            self.save()

    def finish(self, state: str) -> None:
        """The run is over."""
        self._gather()
        self._state = state
        self.save()

    def save(self) -> None:
        """Puts the runs on the workspace."""
        self._written = time.monotonic()
        runs = [*self._earlier, self.to_json()][-MAX_RUNS:]
        with contextlib.suppress(InfrastructureError):
            write_json(self._file, {"version": VERSION, "runs": runs})

    def to_json(self) -> dict[str, Any]:
        """This run: seconds count from its beginning."""
        now = time.time()
        rows = [
            {
                "stage": stage,
                "process": process,
                "device": lane.device,
                **self._relative(each),
            }
            for (stage, process), lane in self._lanes.items()
            for each in lane.spans
        ]
        began = datetime.fromtimestamp(self._began, UTC)
        seconds = max([now - self._began, *(row["end"] for row in rows)])
        return {
            "started": began.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "state": self._state,
            "seconds": round(seconds, 2),
            "startUpSeconds": round(start_up_seconds(rows), 2),
            "stages": [self._stage_json(stage, rows, now) for stage in self._stages],
            "spans": sorted(rows, key=lambda row: (row["start"], row["process"])),
        }

    def _relative(self, span: Span) -> dict[str, Any]:
        value = asdict(span)
        value["kind"] = Activity(span.activity).kind.value
        for name in ("start", "end"):
            # Clocks of machines differ; nothing is before the beginning.
            value[name] = round(max(0.0, value[name] - self._began), 3)
        value["seconds"] = round(span.seconds, 3)
        return value

    def _stage_json(
        self, stage: _StageTime, rows: list[dict[str, Any]], now: float
    ) -> dict[str, Any]:
        start, end = stage.start - self._began, (stage.end or now) - self._began
        within = [
            {**row, "start": max(row["start"], start), "end": min(row["end"], end)}
            for row in rows
            if row["end"] > start and row["start"] < end
        ]
        value = {
            "name": stage.name,
            "start": round(start, 3),
            "seconds": round(end - start, 2),
            "workSeconds": round(_length(_union(_of(within, Kind.WORK))), 2),
            "startUpSeconds": round(start_up_seconds(within), 2),
        }
        if stage.gpus > 0 and end > start:
            value["gpuIdleShare"] = round(_idle_share(within, stage.gpus, end - start), 3)
        return value

    def _gather(self) -> None:
        """Takes what has been recorded since the last time for the stage that is on."""
        stage = self._stages[-1].name if self._stages and self._stages[-1].end is None else ""
        for value in spans.take():
            lane = Lane.from_json(value)
            process = self._name(lane)
            known = self._lanes.setdefault(
                (stage, process), Lane(lane.process, lane.number, lane.device, [])
            )
            known.device = lane.device
            for each in lane.spans:
                before = len(known.spans)
                if self._kept < MAX_SPANS or any(s.activity == each.activity for s in known.spans):
                    known.add(each)
                self._kept += len(known.spans) - before

    def _name(self, lane: Lane) -> str:
        """Where there are several of a kind they are counted as they turn up."""
        if not lane.number:
            return lane.process
        seen = self._numbers.setdefault(lane.process, [])
        if lane.number not in seen:
            seen.append(lane.number)
        return f"{lane.process} {seen.index(lane.number) + 1}"


def start_up_seconds(rows: Iterable[dict[str, Any]]) -> float:
    """Time in which some process was starting or stopping, and none did the job's work."""
    rows = list(rows)
    starting, working = _union(_of(rows, Kind.START_UP)), _union(_of(rows, Kind.WORK))
    return _length(_union([*starting, *working])) - _length(working)


def _idle_share(rows: list[dict[str, Any]], gpus: float, seconds: float) -> float:
    """Share of the GPUs' time in which the process that has them recorded no work."""
    busy = 0.0
    for process in {row["process"] for row in rows if row["device"] == "cuda"}:
        mine = [r for r in rows if r["process"] == process and r["kind"] == Kind.WORK.value]
        # Joined spans have gaps, and a span may lie within another.
        busy += min(_length(_union(_of(mine, Kind.WORK))), sum(row["seconds"] for row in mine))
    return min(1.0, max(0.0, 1.0 - busy / (gpus * seconds)))


def _of(rows: Iterable[dict[str, Any]], kind: Kind) -> list[Interval]:
    return [(row["start"], row["end"]) for row in rows if row["kind"] == kind.value]


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same stretch of time in intervals that do not overlap."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _length(intervals: Iterable[Interval]) -> float:
    return sum(end - start for start, end in intervals)
