"""Runs a job as `dreambooth run` does, with the same code in this one process and no Ray.

What the product spends above this is Ray's share: its own processes and messages, and that every
worker process imports the libraries and loads the model anew.

    python -m bench.without_ray JOB.yaml WORKSPACE
"""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from dreambooth.api.manifest import load_job
from dreambooth.cli.json_lines import JsonListener
from dreambooth.pipeline.context import StageContext
from dreambooth.pipeline.driver import run_job
from dreambooth.sampling import factory
from dreambooth.sampling.drawing import ModelSource, PictureActor
from dreambooth.sampling.picture_set import PictureSet


def main(job_file: Path, workspace: Path) -> None:
    """Runs the job; events go to the standard output as with `dreambooth run --json`."""
    replaced = {
        "dreambooth.pipeline.session.LazyRay.begin": lambda *_: None,
        "dreambooth.pipeline.session.LazyRay.ensure": lambda _: None,
        "dreambooth.sampling.factory._produce": produce,
        "dreambooth.stages.train.TrainStage.prepare": lambda *_: None,
        "dreambooth.stages.train.TrainStage._fit": lambda _, context, plan: fit(context, plan),
    }
    with contextlib.ExitStack() as patches:
        for name, value in replaced.items():
            patches.enter_context(patch(name, value))
        run_job(load_job(job_file), workspace, [JsonListener()])


def produce(
    groups: Sequence[Any], sets: Sequence[PictureSet], source: ModelSource
) -> Iterator[dict[str, Any]]:
    """Draws and writes batch by batch, with the code that Ray's actors and tasks run."""
    actor = PictureActor()
    for task in groups:
        batch = {"task": np.array([json.dumps(asdict(task))], dtype=object)}
        for drawn in actor.draw(source, batch):
            for row in factory._write(drawn, sets)["row"]:
                if value := factory.take_row(str(row)):
                    yield value


def fit(context: StageContext, plan: Any) -> None:
    """Trains with the code that Ray Train's workers run."""
    from dreambooth.training.worker import train_worker

    train_worker({"plan": plan, "relay": _Relay(context, plan.steps)})


class _Relay:
    """Takes the worker's rows as the relay's actor would."""

    def __init__(self, context: StageContext, steps: int) -> None:
        self._context = context
        self._steps = steps
        self.push = self

    def remote(self, row: dict[str, Any]) -> None:
        """Passes a row on."""
        if "error" in row:
            raise row["error"]
        if "step" not in row:
            return
        self._context.progress(row["step"], self._steps, "steps", step=row["step"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
