"""Where on a Ray cluster the work runs.

The driver's machine may have no GPU and offer no CPUs (a head pod). Machines that are for drawing
only offer Ray the custom resource `drawing`, and then those that train offer `training`; a cluster
without the first has one kind of machine that does both.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DRAWING, TRAINING = "drawing", "training"
# How much of such a resource a process takes: it only says where, not how many.
SLIVER = 0.001

Resources = Mapping[str, float]


@dataclass(frozen=True)
class Placement:
    """What processes ask Ray for.

    Attributes:
        trainer: Resources of one training worker.
        drawer: Ray's options for one process that draws.
        drawers: How many of those there can be.
        overlaps: Training workers may be started while others draw: they take nothing from them.
    """

    trainer: dict[str, float]
    drawer: dict[str, Any]
    drawers: int
    overlaps: bool = False

    @property
    def shares_gpu(self) -> bool:
        """Whether the one that trains and the one that draws are given the same GPU."""
        return 0.0 < self.trainer.get("GPU", 0.0) < 1.0

    @property
    def draws_elsewhere(self) -> bool:
        """Whether machines draw that never train."""
        return DRAWING in self.drawer.get("resources", {})

    @property
    def trains_on_gpus(self) -> bool:
        """Whether a training worker is given a GPU."""
        return "GPU" in self.trainer


def placement(workers: int = 1) -> Placement:
    """For the cluster that Ray is connected to, and a job that trains with `workers` processes.

    `DREAMBOOTH_GPUS` says how many GPUs belong to the job even while a machine is being replaced:
    then the work waits for them instead of starting without.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = float(os.environ.get("DREAMBOOTH_GPUS") or 0)
    return place(nodes, gpus_expected=gpus > 0, workers=workers)


def place(nodes: Sequence[Resources], *, gpus_expected: bool, workers: int = 1) -> Placement:
    """For a cluster whose machines offer `nodes`."""
    drawing = [node for node in nodes if DRAWING in node]
    training = [node for node in nodes if DRAWING not in node]
    trains = {"GPU": 1.0} if gpus_expected or _gpus(training) else {"CPU": 1.0}
    if not drawing:
        return _on_the_same(nodes, trains, gpus_expected=gpus_expected, workers=workers)
    options, count = _drawers(drawing, gpus_expected=False)
    options["resources"] = {DRAWING: SLIVER}
    return Placement(trains | {TRAINING: SLIVER}, options, count, overlaps=True)


def _on_the_same(
    nodes: Sequence[Resources], trains: dict[str, float], *, gpus_expected: bool, workers: int
) -> Placement:
    """Machines that draw and train."""
    options, count = _drawers(nodes, gpus_expected=gpus_expected)
    if "GPU" not in trains:
        # A worker takes a CPU; one that draws, and two tasks that read and write, need room too.
        roomy = len(nodes) == 1 and nodes[0].get("CPU", 0) >= workers + 3
        return Placement(trains, options, count, overlaps=roomy)
    if _gpus(nodes) != 1 or workers != 1:
        return Placement(trains, options, count)
    # The one GPU there is has room for one that trains and one that draws, who take turns. With
    # several GPUs Ray could put two halves on one of them.
    return Placement({"GPU": 0.5}, options | {"num_gpus": 0.5}, count, overlaps=True)


def sees_gpus(where: Placement) -> bool:
    """Whether training workers can compute on the GPUs that Ray gives them.

    Ray counts what it is told to; torch, which the driver cannot ask for another machine, counts
    what it can use.
    """
    import ray

    if not where.trains_on_gpus:
        return False
    custom = {name: amount for name, amount in where.trainer.items() if name == TRAINING}
    ask = ray.remote(num_cpus=0, num_gpus=where.trainer["GPU"], resources=custom)(_torch_sees_gpu)
    found: bool = ray.get(ask.remote())
    return found


def _torch_sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _drawers(nodes: Sequence[Resources], *, gpus_expected: bool) -> tuple[dict[str, Any], int]:
    """Options and number of the processes that draw: one a GPU, else one a machine."""
    if gpus_expected or _gpus(nodes):
        # The other half is for the tasks that write what is drawn.
        return {"num_gpus": 1, "num_cpus": 0.5}, max(1, _gpus(nodes))
    machines = [node for node in nodes if node.get("CPU", 0) > 0]
    # A process computes with all cores of its machine whatever it reserves; the tasks that write
    # must find room, or all of it waits for ever.
    roomy = all(node["CPU"] >= 2 for node in machines)
    options = {"num_cpus": 1 if roomy else 0.5, "scheduling_strategy": "SPREAD"}
    return options, max(1, len(machines))


def _gpus(nodes: Sequence[Resources]) -> int:
    return sum(int(node.get("GPU", 0)) for node in nodes)
