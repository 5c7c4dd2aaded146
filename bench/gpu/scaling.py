"""Jobs on one, two and four GPUs of one machine, through the product's own stages and one Ray."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import torch

from bench.gpu.jobs import JobRun, drawn_a_second, figures, run_job
from bench.gpu.scratch import scratch, write_job
from bench.gpu.whole_job import COMPARED_LOSSES, compiled_in, job_workspace
from bench.gpu.whole_job import spec as whole_spec

WORKERS = 2
# Pairs of a step on each GPU, as in the notebook's batch.
PAIRS = 2
# Pictures for each GPU: enough that most are drawn while nothing starts or ends.
CLASS_IMAGES, PICTURES = 128, 64
# What training workers of Ray Train are called among processes.
WORKER = "ray::RayTrainWorker"


def one_full(tiny: bool) -> dict[str, Any]:
    """The same as `full` on one of the GPUs."""
    return _full(tiny, 1, _empty(tiny, "one"))


def full(tiny: bool) -> dict[str, Any]:
    """Class images and pictures on both GPUs; a full fine-tune with one GPU's batch on each."""
    return _full(tiny, WORKERS, _empty(tiny, "two"))


def four(tiny: bool) -> dict[str, Any]:
    """The same on four GPUs."""
    return _full(tiny, 4, _empty(tiny, "four"))


def same_batch(tiny: bool) -> dict[str, Any]:
    """The training of `one_full` with its pairs shared by two workers, on its class images."""
    wanted = _spec(tiny, "full", workers=WORKERS, each=1, share=1)
    run = _run(tiny, "two-same", wanted, scratch(tiny) / "one")
    return _told("full, one pair each", _figures(run))


def one_lora(tiny: bool) -> dict[str, Any]:
    """The same as `lora` on one of the GPUs, and nobody is killed."""
    return _told("LoRA, one GPU", _figures(_run_lora(tiny, 1, "one-lora")))


def lora(tiny: bool) -> dict[str, Any]:
    """LoRA with one GPU's batch on each; a worker is killed after the first checkpoint."""
    killer = _Killer(12 if tiny else 150, scratch(tiny) / "two-lora")
    run = _run_lora(tiny, WORKERS, "two-lora", killer)
    return _told("LoRA, two pairs each", _figures(run) | killer.figures(run, _lora_training(tiny)))


def _full(tiny: bool, workers: int, workspace: Path) -> dict[str, Any]:
    wanted = _spec(tiny, "full", workers=workers, each=PAIRS, share=workers)
    run = _run(tiny, f"full-{workers}", wanted, workspace)
    return _told(f"full, two pairs each, {workers} GPUs", _figures(run) | _drawn(run))


def _run_lora(tiny: bool, workers: int, name: str, listen: Any = None) -> JobRun:
    wanted = _spec(tiny, "lora", workers=workers, each=PAIRS, share=0)
    wanted["training"] |= _lora_training(tiny)
    return _run(tiny, name, wanted, _empty(tiny, name), listen)


def _lora_training(tiny: bool) -> dict[str, int]:
    return {"steps": 40 if tiny else 300, "checkpointEvery": 8 if tiny else 100}


class _Killer:
    """Kills one training worker once, as a lost machine would, when a checkpoint is on the disk."""

    def __init__(self, after_step: int, workspace: Path) -> None:
        self._after = after_step
        self._workspace = workspace
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
        if not any(self._workspace.glob("jobs/*/checkpoints/step-??????")):
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


def _spec(tiny: bool, method: str, *, workers: int, each: int, share: int) -> dict[str, Any]:
    """A job of which pictures and training are measured.

    Args:
        tiny: Whether the networks are.
        method: Of training.
        workers: GPUs.
        each: Pairs of a step on each of them.
        share: How many GPUs' worth of pictures there are; 0 for next to none.
    """
    wanted = whole_spec(tiny, method=method, workers=workers)
    each_class, each_picture = (8, 4) if tiny else (CLASS_IMAGES, PICTURES)
    wanted["classImages"] |= {"count": share * each_class or 4, "seed": 1}
    wanted["training"] |= {"steps": 12 if tiny else 120, "batchSize": workers * each}
    wanted["generation"] |= {"imagesPerPrompt": share * each_picture or 1}
    return wanted


def _run(
    tiny: bool, name: str, wanted: dict[str, Any], workspace: Path, listen: Any = None
) -> JobRun:
    environment = compiled_in(job_workspace(tiny))
    if visible := _visible(wanted["cluster"]["workers"]):
        environment["CUDA_VISIBLE_DEVICES"] = visible
    return run_job(write_job(tiny, name, wanted), workspace, environment, listen)


def _visible(count: int) -> str:
    """The first `count` GPUs of those this process may use; empty without any."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else list(map(str, range(torch.cuda.device_count())))
    return ",".join(names[:count])


def _empty(tiny: bool, name: str) -> Path:
    workspace = scratch(tiny) / name
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
        "losses": run.losses[:COMPARED_LOSSES],
    }


def _drawn(run: JobRun) -> dict[str, Any]:
    stage = figures(run)["stages"]["classImages"]
    return {
        "images_a_second": drawn_a_second(run, "classImages"),
        "pictures_a_second": drawn_a_second(run, "generate"),
        "class_images_s": stage["end"] - stage["start"],
        "busy_share": stage.get("busy_share"),
    }


def _told(what: str, found: dict[str, Any]) -> dict[str, Any]:
    print(f"two GPUs, {what}: { {k: v for k, v in found.items() if k != 'losses'} }", flush=True)
    return found
