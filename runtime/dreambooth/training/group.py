"""Ray Train's workers of one job, started ahead of their work where there is room.

Starting Ray Train is waiting for half a dozen processes and their imports. None of that needs to
know what is to be trained, so it can go on while class images are drawn; the workers then wait for
the plan. When they are done the job goes on at once, and Ray Train stops beside it.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreambooth.pipeline.placement import Placement, sees_gpus
from dreambooth.spans import Activity, span
from dreambooth.training.telemetry import Relay, Row
from dreambooth.workspace.atomic import remove_tree

# Ray Train starts the workers again this often within one run of the stage.
MAX_WORKER_FAILURES = 3
# What a job waits at its end for a training that is done to leave.
STOP_SECONDS = 30.0
# What training waits for the memory of a process that drew on the GPU it shares.
RELEASE_SECONDS, RELEASE_LOOK_SECONDS = 20.0, 0.05


@dataclass(frozen=True)
class GroupSettings:
    """What has to be known to start workers.

    Attributes:
        workers: How many.
        folder: For Ray Train's own record, which is removed when it has stopped.
        where: What each of them asks Ray for.
    """

    workers: int
    folder: Path
    where: Placement


class TrainingGroup:
    """The workers of one training; `listener` is told every row they send."""

    def __init__(self, settings: GroupSettings, listener: Callable[[Row], None]) -> None:
        self._settings, self._listener = settings, listener
        self._asked = time.time()
        self._over = threading.Event()
        self._done = False
        self._error: BaseException | None = None
        # Ray's own record of a run only matters while that run lives: what must survive is in our
        # checkpoints, which appear whole or not at all.
        remove_tree(settings.folder)
        self._relay = Relay(self._hear)
        self._thread = threading.Thread(target=self._fit, name="ray-train", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether it ended before it was given anything to do, say with Ray Train's own process."""
        return self._over.is_set() and not self._done

    def give(self, plan: Any) -> None:
        """Gives the workers their plan, once nobody else holds memory of their GPU."""
        if self._settings.where.shares_gpu:
            _wait_for_gpu(self._settings.where)
        self._relay.give(plan)

    def wait(self) -> None:
        """Waits until they are done with it.

        Raises:
            Exception: What Ray Train ended with, if it gave up.
        """
        self._over.wait()
        if self._error is not None and not self._done:
            raise self._error

    def close(self) -> None:
        """Lets a training that is done leave; another is left to the end of Ray."""
        with contextlib.suppress(Exception):
            self._relay.give(None)
        if not self._done:
            return
        with span(Activity.TRAIN_STOP):
            self._thread.join(STOP_SECONDS)

    def _hear(self, row: Row) -> None:
        if row.get("done"):
            self._done = True
            self._over.set()
        else:
            self._listener(row)

    def _fit(self) -> None:
        try:
            self._run_ray_train()
        except BaseException as error:
            self._error = error
        finally:
            self._over.set()
            self._relay.close()
            with contextlib.suppress(Exception):
                remove_tree(self._settings.folder)

    def _run_ray_train(self) -> None:
        # Seconds long; here, so that nobody waits for it.
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        from dreambooth.training.worker import train_worker

        settings, where = self._settings, self._settings.where
        TorchTrainer(
            train_worker,
            train_loop_config={"relay": self._relay.actor, "asked": self._asked},
            scaling_config=ScalingConfig(
                num_workers=settings.workers,
                use_gpu=where.trains_on_gpus,
                resources_per_worker=where.trainer,
            ),
            torch_config=TorchConfig(backend=_backend(settings)),
            run_config=RunConfig(
                name="train",
                storage_path=str(settings.folder),
                failure_config=FailureConfig(max_failures=MAX_WORKER_FAILURES),
            ),
        ).fit()


def _backend(settings: GroupSettings) -> str:
    """How workers talk; one talks to nobody, and nobody needs to be asked for it.

    Left to itself, Ray Train takes for granted that torch can use what Ray counts.
    """
    return "nccl" if settings.workers > 1 and sees_gpus(settings.where) else "gloo"


def _wait_for_gpu(where: Placement) -> None:
    """Waits until who drew on the shared GPU has left it, so that training finds all its memory."""
    import ray

    left = time.monotonic() + RELEASE_SECONDS
    needed = where.drawer.get("num_gpus", 0.0)
    while time.monotonic() < left and ray.available_resources().get("GPU", 0.0) < needed:
        time.sleep(RELEASE_LOOK_SECONDS)
