"""Jobs on two GPUs of one machine, through the product's own stages and one local Ray.

What they are compared with, one GPU of the same machine, is what `bench.gpu` measures there.
"""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil

from bench.gpu.jobs import JobRun, figures, run_job
from bench.gpu.scratch import CLASS_TEMPLATE, PROMPT, scratch, write_job
from bench.gpu.whole_job import COMPARED_LOSSES, compiled_in, job_workspace
from bench.gpu.whole_job import spec as whole_spec

WORKERS = 2
# What training workers of Ray Train are called among processes.
WORKER = "ray::RayTrainWorker"


def full(tiny: bool) -> dict[str, Any]:
    """Class images on both GPUs; a full fine-tune with one GPU's batch on each."""
    wanted = _spec(tiny, "full", pairs=2 * WORKERS, class_images=16 if tiny else 96)
    run = _run(tiny, "two-full", wanted, _empty(tiny))
    return _told("full, two pairs each", _figures(run) | _drawn(run))


def same_batch(tiny: bool) -> dict[str, Any]:
    """The whole job's training with its pairs shared by two workers, on its class images."""
    wanted = whole_spec(tiny, workers=WORKERS)
    wanted["training"]["steps"] = 12 if tiny else 100
    workspace = job_workspace(tiny)
    shutil.rmtree(workspace / "jobs" / "two-same", ignore_errors=True)
    run = _run(tiny, "two-same", wanted, workspace)
    return _told("full, one pair each", _figures(run) | {"losses": run.losses[:COMPARED_LOSSES]})


def lora(tiny: bool) -> dict[str, Any]:
    """LoRA with one GPU's batch on each; a worker is killed after the first checkpoint."""
    wanted = _spec(tiny, "lora", pairs=2 * WORKERS, class_images=4)
    wanted["training"] |= {"steps": 40 if tiny else 300, "checkpointEvery": 8 if tiny else 100}
    killer = _Killer(after_step=12 if tiny else 150)
    run = _run(tiny, "two-lora", wanted, _empty(tiny), killer)
    return _told("LoRA, two pairs each", _figures(run) | killer.figures(run, wanted["training"]))


class _Killer:
    """Kills one training worker once, as a lost machine would."""

    def __init__(self, after_step: int) -> None:
        self._after = after_step
        self._seen = 0
        self.killed: str | None = None
        self.step = 0
        self.reports_before = 0

    def __call__(self, pid: int, event: dict[str, Any]) -> None:
        """Hears an event of the job whose command is process `pid`."""
        if event["kind"] != "stageProgress" or event.get("stage") != "train":
            return
        self._seen += 1
        if self.killed is not None or event.get("step", 0) < self._after:
            return
        for process in psutil.Process(pid).children(recursive=True):
            title = " ".join(process.cmdline())
            if title.startswith(WORKER):
                os.kill(process.pid, signal.SIGKILL)
                self.killed, self.step = title.strip(), event["step"]
                self.reports_before = self._seen
                return

    def figures(self, run: JobRun, training: dict[str, Any]) -> dict[str, Any]:
        """From where it went on, and what was done again."""
        reports = [
            event
            for _, event in run.events
            if event["kind"] == "stageProgress" and event["stage"] == "train"
        ]
        steps = [e["step"] for e in reports[self.reports_before :] if e.get("step")]
        return {
            "recovery": {
                "killed": self.killed,
                "killed_after_step": self.step,
                "resumed_from": [e["resumedFromStep"] for e in reports if e.get("resumedFromStep")],
                "first_step_after": steps[0] if steps else None,
                "last_step": run.training.get("steps"),
                "losses": len(run.losses),
                "steps": training["steps"],
                "checkpoint_every": training["checkpointEvery"],
            }
        }


def _spec(tiny: bool, method: str, *, pairs: int, class_images: int) -> dict[str, Any]:
    """A job whose class images and training are measured; of the rest there is little."""
    wanted = whole_spec(tiny, method=method, workers=WORKERS)
    wanted["classImages"] |= {"prompt": CLASS_TEMPLATE, "count": class_images, "seed": 1}
    wanted["training"] |= {"steps": 12 if tiny else 120, "batchSize": pairs}
    wanted["generation"] |= {"prompts": [PROMPT], "imagesPerPrompt": 1, "steps": 2 if tiny else 10}
    return wanted


def _run(
    tiny: bool, name: str, wanted: dict[str, Any], workspace: Path, listen: Any = None
) -> JobRun:
    environment = compiled_in(job_workspace(tiny))
    return run_job(write_job(tiny, name, wanted), workspace, environment, listen)


def _empty(tiny: bool) -> Path:
    workspace = scratch(tiny) / "two"
    shutil.rmtree(workspace, ignore_errors=True)
    return workspace


def _figures(run: JobRun) -> dict[str, Any]:
    found = figures(run)
    stage = found["stages"]["train"]
    return {
        "ms": found["step_ms"],
        "peak_gib": stage.get("peak_gib"),
        "stage_s": stage["end"] - stage["start"],
        "training": found["training"],
        "timeline": found["timeline"]["stages"],
        "seconds": run.seconds,
    }


def _drawn(run: JobRun) -> dict[str, Any]:
    found = figures(run)
    stage = found["stages"]["classImages"]
    return {
        "images_a_second": found["class_images_a_second"],
        "class_images_s": stage["end"] - stage["start"],
        "busy_share": stage.get("busy_share"),
    }


def _told(what: str, found: dict[str, Any]) -> dict[str, Any]:
    print(f"two GPUs, {what}: { {k: v for k, v in found.items() if k != 'losses'} }", flush=True)
    return found
