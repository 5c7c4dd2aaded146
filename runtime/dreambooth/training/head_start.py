"""What a worker does before it has a plan: all that does not depend on one.

It is there long before class images are drawn. It compiles a step's kernels, and where its GPU has
room beside who draws there, it also takes steps on nothing and loads the base model.
"""

import gc
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dreambooth.models.family import ModelFamily
from dreambooth.sampling.devices import (
    compute_repeatably,
    keep_compiled,
    keep_memory,
    physical_threads,
    this_device,
)
from dreambooth.spans import Activity, span
from dreambooth.training.distributed import World
from dreambooth.training.group import Preview
from dreambooth.training.rehearsal import (
    fits_beside,
    load_for_training,
    rehearse_training,
    warm_up,
)
from dreambooth.training.telemetry import PlanToCome, Telemetry

_log = logging.getLogger(__name__)


@dataclass
class HeadStart:
    """What was done ahead.

    Attributes:
        folder: Diffusers folder of `model`.
        model: On the worker's device, until it is taken.
    """

    folder: str | None = None
    model: ModelFamily | None = None

    def take_model(self, folder: str, device: torch.device) -> ModelFamily:
        """The base model, loaded now unless it was."""
        model, self.model = self.model, None
        if model is not None and folder == self.folder:
            return model
        with span(Activity.MODEL_LOAD):
            return load_for_training(Path(folder), device)


def get_ready(preview: Preview, coming: PlanToCome, world: World, relay: Any) -> HeadStart:
    """Does one thing after the other until there is a plan; nothing that fails here is told."""
    start = HeadStart()
    try:
        _get_ready(start, preview, coming, world, relay)
    except Exception as error:
        # What is wrong with a model is told when it is loaded.
        _log.warning("not ready ahead: %s: %s", type(error).__name__, error)
    # Of steps that were tried, engines and their memory are left in cycles.
    gc.collect()
    return start


def _get_ready(
    start: HeadStart, preview: Preview, coming: PlanToCome, world: World, relay: Any
) -> None:
    rehearse_training(preview)
    # Only one worker ever shares its GPU with who draws.
    if world.size > 1 or not fits_beside(preview, torch.cuda.mem_get_info()[0]):
        return
    Telemetry(relay, speaks=True).send({"fits_beside": True})
    device = prepare_device(world)
    if not coming.has_come():
        warm_up(preview, device)
        gc.collect()
    if not coming.has_come():
        start.model = start.take_model(preview.base_model, device)
        start.folder = preview.base_model


def prepare_device(world: World) -> torch.device:
    """Sets this process up to compute as the worker `world.rank`; says on what."""
    keep_memory()
    keep_compiled()
    device = this_device()
    if device.type == "cuda":
        # With its number, which some of torch asks for.
        device = torch.device("cuda", torch.cuda.current_device())
        if world.size > 1:
            import ray.train.torch

            device = ray.train.torch.get_device()
        torch.cuda.set_device(device)
    if device.type == "cpu":
        compute_repeatably()
        # Workers of one machine share its cores.
        share = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, physical_threads() // share))
    torch.manual_seed(0)
    return device
