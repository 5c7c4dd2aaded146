"""One GPU against two through the product's own stages, on one machine with one local Ray."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bench.gpu.jobs import JobRun, figures, run_job
from bench.gpu.scratch import CLASS_TEMPLATE, PROMPT, scratch, write_job

ONE_GPU = {"CUDA_VISIBLE_DEVICES": "0"}
COMPARED_LOSSES = 20
# What training workers of Ray Train are called among processes.
WORKER = "ray::RayTrainWorker"


def spec(
    tiny: bool, *, method: str, workers: int, pairs: int, class_images: int, seed: int = 0
) -> dict[str, Any]:
    """A job whose training and class images are measured; of the rest there is little."""
    return {
        "classImages": {
            "count": class_images,
            "prompt": CLASS_TEMPLATE,
            "steps": 2 if tiny else 50,
            "guidance": 7.5,
            "seed": seed,
        },
        "training": {
            "method": method,
            "steps": 12 if tiny else 120,
            "batchSize": pairs,
            "learningRate": 5e-6 if method == "full" else 1e-4,
            "textEncoder": True,
            "keep": "last",
            "checkpointEvery": 6 if tiny else 60,
        },
        "generation": {
            "prompts": [PROMPT],
            "imagesPerPrompt": workers,
            "steps": 2 if tiny else 10,
            "guidance": 7.5,
        },
        "evaluation": {"prompts": [PROMPT], "imagesPerPrompt": 1},
        "cluster": {"workers": workers},
    }


def training(tiny: bool) -> Iterator[dict[str, Any]]:
    """Full and LoRA: one worker, two with the same pairs in all, two with the same pairs each.

    One worker with the pairs of two is what the losses of two are compared with.
    """
    workspace = _workspace(tiny, "scaling")
    for method in ("full", "lora"):
        losses: dict[tuple[int, int], list[float]] = {}
        for workers, pairs in ((1, 2), (1, 4), (2, 2), (2, 4)):
            name = f"{method}-{workers}w-{pairs}p"
            count = 4 if tiny else 16
            wanted = spec(tiny, method=method, workers=workers, pairs=pairs, class_images=count)
            row: dict[str, Any] = {"method": method, "workers": workers, "pairs": pairs}
            try:
                run = _run(tiny, name, wanted, workspace)
                losses[workers, pairs] = run.losses
                row |= _training_figures(run)
                row |= _apart(run.losses, losses.get((1, pairs)) if workers > 1 else None)
            except RuntimeError as error:
                row["failed"] = str(error)
            print(f"training, {_words(row)}", flush=True)
            yield row


def drawing(tiny: bool) -> Iterator[dict[str, Any]]:
    """Class images a second with one GPU and with two, three times each in turns."""
    for number in range(1 if tiny else 3):
        for gpus in (1, 2):
            count = (8 if tiny else 80) * gpus
            workspace = _workspace(tiny, "drawing")
            wanted = spec(
                tiny, method="lora", workers=gpus, pairs=2, class_images=count, seed=number
            )
            wanted["training"] |= {"steps": 4, "checkpointEvery": 4}
            row: dict[str, Any] = {"gpus": gpus, "class_images": count, "round": number}
            try:
                row |= _drawing_figures(_run(tiny, f"draw-{gpus}-{number}", wanted, workspace))
            except RuntimeError as error:
                row["failed"] = str(error)
            shown = {name: value for name, value in row.items() if name != "job"}
            print(f"drawing, {shown}", flush=True)
            yield row


def recovery(tiny: bool) -> dict[str, Any]:
    """One of two workers is killed after its first checkpoint; what is done again, and how long."""
    workspace = _workspace(tiny, "recovery")
    wanted = spec(tiny, method="lora", workers=2, pairs=2, class_images=4)
    wanted["training"] |= {"steps": 40 if tiny else 400, "checkpointEvery": 8 if tiny else 100}
    killer = _Killer(after_step=12 if tiny else 150)
    run = _run(tiny, "recovery", wanted, workspace, killer)
    seen = [
        event
        for _, event in run.events
        if event["kind"] == "stageProgress" and event["stage"] == "train"
    ]
    resumed = [event["resumedFromStep"] for event in seen if event.get("resumedFromStep")]
    after = seen[killer.events_before :]
    steps = [event["step"] for event in after if event.get("step")]
    found = {
        "killed_after_step": killer.step,
        "killed": killer.killed,
        "resumed_from": resumed,
        "first_step_after": steps[0] if steps else None,
        "last_step": max(steps, default=None),
        "steps": wanted["training"]["steps"],
        "checkpoint_every": wanted["training"]["checkpointEvery"],
        "losses": len(run.losses),
        "seconds": run.seconds,
    }
    print(f"recovery: {found}", flush=True)
    return found


class _Killer:
    """Kills one training worker once, as a lost machine would."""

    def __init__(self, after_step: int) -> None:
        self._after = after_step
        self._events = 0
        self.killed: str | None = None
        self.step = 0
        self.events_before = 0

    def __call__(self, pid: int, event: dict[str, Any]) -> None:
        if event["kind"] != "stageProgress" or event.get("stage") != "train":
            return
        self._events += 1
        if self.killed is not None or event.get("step", 0) < self._after:
            return
        for process in psutil.Process(pid).children(recursive=True):
            title = " ".join(process.cmdline())
            if title.startswith(WORKER):
                os.kill(process.pid, signal.SIGKILL)
                self.killed, self.step, self.events_before = title, event["step"], self._events
                return


def _run(
    tiny: bool, name: str, wanted: dict[str, Any], workspace: Path, listen: Any = None
) -> JobRun:
    gpus = wanted["cluster"]["workers"]
    environment = {"TRITON_CACHE_DIR": str(scratch(tiny) / "triton")}
    return run_job(
        write_job(tiny, name, wanted),
        workspace,
        environment | (ONE_GPU if gpus == 1 and not tiny else {}),
        listen,
    )


def _workspace(tiny: bool, name: str) -> Path:
    """An empty one."""
    workspace = scratch(tiny) / name
    shutil.rmtree(workspace, ignore_errors=True)
    return workspace


def _training_figures(run: JobRun) -> dict[str, Any]:
    found = figures(run)
    return {
        "ms": found["step_ms"],
        "peak_gib": found["stages"]["train"].get("peak_gib"),
        "stage_s": found["stages"]["train"]["end"] - found["stages"]["train"]["start"],
        "training": found["training"],
        "timeline": found["timeline"]["stages"],
        "losses": run.losses[:COMPARED_LOSSES],
        "measured": time.strftime("%Y-%m-%d"),
    }


def _apart(losses: list[float], reference: list[float] | None) -> dict[str, float]:
    """How far the losses are from those of one worker with the same pairs."""
    if not reference:
        return {}
    pairs = list(zip(losses, reference, strict=False))[:COMPARED_LOSSES]
    return {"losses_apart": max(abs(ours - theirs) / theirs for ours, theirs in pairs)}


def _drawing_figures(run: JobRun) -> dict[str, Any]:
    found = figures(run)
    stage = found["stages"]["classImages"]
    return {
        "images_a_second": found["class_images_a_second"],
        "stage_s": stage["end"] - stage["start"],
        "busy_share": stage.get("busy_share"),
    }


def _words(row: dict[str, Any]) -> str:
    head = f"{row['method']}, {row['workers']} workers, {row['pairs']} pairs"
    if "failed" in row:
        return f"{head}: FAILED {row['failed']}"
    apart = f", losses {row['losses_apart']:.1e} apart" if "losses_apart" in row else ""
    return (
        f"{head}: {row['ms'] or 0:.1f} ms a step, stage {row['stage_s']:.1f} s, peak "
        f"{row['peak_gib']} GiB{apart}; {row['training']}"
    )
