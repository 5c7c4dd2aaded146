"""Ray Train's workers of one job, started ahead of their work where there is room.

Starting Ray Train is waiting for half a dozen processes and their imports. None of that needs to
know what is to be trained, so it can go on while class images are drawn; the workers then wait for
the plan. When they are done the job goes on at once, and Ray Train stops beside it.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
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
STOP_SECONDS = 5.0
# What training waits for the memory of a process that drew on the GPU it shares.
RELEASE_SECONDS, RELEASE_LOOK_SECONDS = 20.0, 0.05


@dataclass(frozen=True)
class Preview:
    """What can be said of a training before there is a plan; a step's kernels depend on it.

    Attributes:
        base_model: Diffusers folder.
        text_encoder: Whether it is trained, too.
        lora_rank: Of the adapters; None trains all weights.
        pairs: Of one step, on one worker.
    """

    base_model: str
    text_encoder: bool
    lora_rank: int | None
    pairs: int


@dataclass(frozen=True)
class GroupSettings:
    """What has to be known to start workers.

    Attributes:
        workers: How many.
        folder: For Ray Train's own record, which is removed when it has stopped.
        where: What each of them asks Ray for.
        preview: What they may prepare for while they wait for their plan.
    """

    workers: int
    folder: Path
    where: Placement
    preview: Preview | None = None


class TrainingGroup:
    """The workers of one training; `listener` is told every row they send.

    Ray Train is started in a process of Ray's. A thread of the driver would be in it when Ray is
    stopped, and Ray ends a process of which a thread does that.
    """

    def __init__(self, settings: GroupSettings, listener: Callable[[Row], None]) -> None:
        self._settings, self._listener = settings, listener
        self._over = threading.Event()
        self._done = False
        # Whether others may keep what they hold of the workers' GPU; unknown until a worker tells.
        self.fits_beside = False
        self._error: BaseException | None = None
        # Ray's own record of a run only matters while that run lives: what must survive is in our
        # checkpoints, which appear whole or not at all.
        remove_tree(settings.folder)
        self._relay = Relay(self._hear)
        self._run = start_ray_train(settings, self._relay.actor)
        self._run.future.add_done_callback(self._ended)

    @property
    def lost(self) -> bool:
        """Whether it ended before it was given anything to do, say with Ray Train's own process."""
        return self._over.is_set() and not self._done

    def give(self, plan: Any) -> None:
        """Gives the workers their plan, once nobody holds memory of their GPU they may need."""
        if self._settings.where.shares_gpu and not self.fits_beside:
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
        """Lets a training that is done leave, and ends another."""
        with contextlib.suppress(Exception):
            # Workers that are started anew have nothing to do.
            self._relay.give(None)
        if self._done:
            with span(Activity.TRAIN_STOP), contextlib.suppress(Exception):
                self._run.future.result(timeout=STOP_SECONDS)
        self._run.cancel()
        self._relay.close()
        with contextlib.suppress(Exception):
            remove_tree(self._settings.folder)

    def _hear(self, row: Row) -> None:
        if row.get("done"):
            self._done = True
            self._over.set()
        elif "fits_beside" in row:
            self.fits_beside = True
        else:
            self._listener(row)

    def _ended(self, run: "Future[None]") -> None:
        self._error = run.exception()
        self._over.set()


@dataclass(frozen=True)
class RayTrainRun:
    """Ray Train at work in another process.

    Attributes:
        future: Done when Ray Train has ended; with its error, if it gave up.
        cancel: Ends it at once; nothing happens if it has ended.
    """

    future: "Future[None]"
    cancel: Callable[[], object]


def start_ray_train(settings: GroupSettings, relay: Any) -> RayTrainRun:
    """Starts Ray Train, whose workers hear and tell through the actor `relay`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Where the driver is: machines of workers come and go.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    task = ray.remote(run_ray_train).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
    running = task.remote(settings, relay, time.time())

    def cancel() -> None:
        with contextlib.suppress(Exception):
            ray.cancel(running, force=True)

    return RayTrainRun(running.future(), cancel)


def run_ray_train(settings: GroupSettings, relay: Any, asked: float) -> None:
    """Runs Ray Train from its start to its end."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from dreambooth.training.entry import train_worker

    TorchTrainer(
        train_worker,
        train_loop_config={"relay": relay, "asked": asked, "preview": settings.preview},
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.where.trains_on_gpus,
            resources_per_worker=settings.where.trainer,
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
