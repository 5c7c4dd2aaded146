"""Fills sets of pictures with Ray Data.

A pool of model actors, one a GPU (or one a machine without), takes lists of requests and draws
them batch by batch; CPU tasks encode and write the PNGs while the next batch is computed; the
driver sees only names and digests. What an interruption leaves is whole files, so filling goes on
where it was.
"""

import base64
import json
import logging
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreambooth import spans
from dreambooth.errors import DreamBoothError, InfrastructureError
from dreambooth.pipeline.placement import Placement, placement
from dreambooth.sampling.picture_set import PictureSet, PictureSetState
from dreambooth.sampling.settings import BATCH_SIZE, PictureRequest
from dreambooth.spans import Activity, span
from dreambooth.workspace.digest import digest_of

# Processes that may be lost (killed, out of memory) while one call fills its sets.
MAX_LOST_PROCESSES = 3
# Pictures that a GPU is given at a time where several share the work. One alone is given all: it
# draws them in equal batches and never stands still between two lists.
GPU_SHARE = 64
# Pictures are passed on when so many bytes of them are drawn, so that they are written meanwhile:
# five of 512 pixels, one of 1024.
PASSED_ON_BYTES = 4 * 2**20
WRITTEN_TOGETHER = 4

Batch = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ModelSource:
    """A model as actors load it: a diffusers folder, and LoRA weights to merge into it."""

    folder: str
    lora: str | None = None


@dataclass(frozen=True)
class _Task:
    """Requests that share a sampler; plain JSON, for it travels as a string."""

    set_index: list[int]
    requests: list[dict[str, Any]]
    settings: dict[str, Any]


def fill(
    sets: Sequence[PictureSet],
    source: ModelSource,
    on_progress: Callable[[int, int], None],
) -> list[PictureSetState]:
    """Makes every missing picture of `sets` with the model `source`.

    Args:
        sets: The sets; those that share sampler settings share batches.
        source: The model.
        on_progress: Called with (pictures present, pictures wanted).

    Returns:
        The complete sets, in order.

    Raises:
        UserError: If the quality gate gives up on a prompt, or the model cannot be loaded.
        InfrastructureError: If the disk refuses a picture, or processes are lost again and again.
    """
    from ray.exceptions import RayError, RayTaskError

    states = [PictureSetState(pictures) for pictures in sets]
    total = sum(pictures.count for pictures in sets)
    present = sum(state.present for state in states)
    on_progress(present, total)
    lost = 0
    while groups := _groups(states):
        try:
            for row in _produce(groups, sets, source):
                states[row["set"]].add(row["index"], row["attempt"], row["sha256"])
                present += 1
                on_progress(min(present, total), total)
            for state in states:
                if not state.complete:
                    state.settle()
        except RayTaskError:
            raise
        except RayError as error:
            lost += 1
            if lost > MAX_LOST_PROCESSES:
                raise _lost(error) from error
            # What the lost process had finished is on the disk.
            states = [PictureSetState(pictures) for pictures in sets]
        present = sum(state.present for state in states)
    return states


def _groups(states: Sequence[PictureSetState]) -> list[_Task]:
    """All that is missing, one list for each sampler."""
    by_settings: dict[str, _Task] = {}
    for number, state in enumerate(states):
        settings = state.set.settings.to_json()
        for request in state.requests():
            group = by_settings.setdefault(digest_of(settings), _Task([], [], settings))
            group.set_index.append(number)
            group.requests.append(asdict(request))
    return list(by_settings.values())


def share_out(groups: Sequence[_Task], where: Placement) -> list[_Task]:
    """Cuts lists so that all who draw have work until the end.

    On CPUs into batches, which whoever is free takes. On GPUs into few equal parts, because every
    list ends with a batch that nothing runs beside.
    """
    tasks = []
    for group in groups:
        count, size = len(group.requests), BATCH_SIZE
        if "num_gpus" in where.drawer:
            rounds = 1 if where.drawers == 1 else -(-count // (where.drawers * GPU_SHARE))
            size = -(-count // (where.drawers * rounds))
        for start in range(0, count, size):
            part = slice(start, start + size)
            tasks.append(_Task(group.set_index[part], group.requests[part], group.settings))
    return tasks


def _produce(
    groups: Sequence[_Task], sets: Sequence[PictureSet], source: ModelSource
) -> Iterator[dict[str, Any]]:
    # Imported here, for they take seconds: who only looks what is there does without.
    import ray
    from ray.data import ActorPoolStrategy

    _configure()
    where = placement()
    tasks = share_out(groups, where)
    rows = [{"task": json.dumps(asdict(task))} for task in tasks]
    with warnings.catch_warnings():
        # The argument below still has no named successor.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        pictures = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _PictureActor,
            fn_constructor_args=(source,),
            fn_constructor_kwargs={"asked": time.time()},
            batch_size=1,
            compute=ActorPoolStrategy(size=min(where.drawers, len(tasks))),
            # A lost process ends the data set, and `fill` starts the next: Ray would try for ever.
            max_restarts=0,
            **where.drawer,
        )
    written = pictures.map_batches(
        _write, fn_args=(list(sets),), batch_size=WRITTEN_TOGETHER, num_cpus=0.5
    )
    for row in written.iter_rows():
        value = json.loads(row["row"])
        spans.deliver(value.pop("spans", []))
        if "error" in value:
            raise pickle.loads(base64.b64decode(value["error"]))
        if value:
            yield value


def _told(error: DreamBoothError) -> str:
    """`error` as a row: Ray passes on the text of an exception, but not what made it."""
    return json.dumps({"error": base64.b64encode(pickle.dumps(error)).decode()})


def _lost(error: Exception) -> InfrastructureError:
    return InfrastructureError(
        f"the process that draws pictures was lost {MAX_LOST_PROCESSES + 1} times: "
        f"{str(error).strip().splitlines()[0]}",
        remedy="Check free memory and run again; finished pictures are kept.",
        reason="ProcessLost",
    )


def _configure() -> None:
    """Sets what Ray Data takes from its context.

    It logs to its session's files only; progress and errors are reported by the driver.
    """
    from ray.data import DataContext

    context = DataContext.get_current()
    context.target_max_block_size = PASSED_ON_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)


class _PictureActor:
    """Holds the model; draws a list of pictures a call."""

    def __init__(self, source: ModelSource, asked: float | None = None) -> None:
        """`asked` is when the driver asked for this process."""
        from dreambooth.sampling.devices import prepare_process
        from dreambooth.sampling.machines import load_machine

        spans.arrived(asked)
        self._error: DreamBoothError | None = None
        with span(Activity.DEVICE_START):
            device = prepare_process()
        spans.call_this_process("drawing", os.getpid(), device.type)
        try:
            with span(Activity.MODEL_LOAD):
                self._machine = load_machine(source.folder, source.lora, device)
        except DreamBoothError as error:
            # Raised here it would look like a lost process.
            self._error = error

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        if self._error is not None:
            yield _failed(self._error)
            return
        task = _Task(**json.loads(str(batch["task"][0])))
        labels = [
            {"set": number, **request}
            for number, request in zip(task.set_index, task.requests, strict=True)
        ]
        try:
            for pictures in self._draw(task):
                told, labels = labels[: len(pictures)], labels[len(pictures) :]
                # What this process did since its last batch travels with the first picture.
                told[0]["spans"] = spans.take()
                names = np.array([json.dumps(label) for label in told], dtype=object)
                yield {"label": names, "picture": pictures}
        except DreamBoothError as error:
            yield _failed(error)

    def _draw(self, task: _Task) -> Iterator[NDArray[np.uint8]]:
        from dreambooth.sampling.settings import SamplingSettings
        from dreambooth.sampling.studio import draw

        requests = [PictureRequest(**request) for request in task.requests]
        drawn = draw(self._machine, requests, SamplingSettings(**task.settings))
        while True:
            with span(Activity.DRAW):
                pictures = next(drawn, None)
            if pictures is None:
                return
            yield pictures


def _failed(error: DreamBoothError) -> Batch:
    told = np.array([_told(error)], dtype=object)
    return {"label": told, "picture": np.zeros((1, 1, 1, 3), np.uint8)}


def _write(batch: Batch, sets: Sequence[PictureSet]) -> Batch:
    import hashlib

    from dreambooth.sampling.files import write_png

    spans.call_this_process("writing", os.getpid())
    began, rows = time.time(), []
    for label, picture in zip(batch["label"], batch["picture"], strict=True):
        request = json.loads(str(label))
        if "error" in request:
            rows.append(str(label))
            continue
        pictures = sets[request["set"]]
        file: Path = pictures.file(request["index"], request["attempt"])
        metadata = {
            "prompt": request["prompt"],
            "seed": request["seed"],
            **pictures.settings.to_json(),
            **pictures.provenance,
        }
        try:
            data = write_png(file, np.asarray(picture, dtype=np.uint8), metadata)
        except DreamBoothError as error:
            rows.append(_told(error))
            continue
        rows.append(
            json.dumps(
                {
                    "set": request["set"],
                    "index": request["index"],
                    "attempt": request["attempt"],
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "spans": request.get("spans", []),
                }
            )
        )
    spans.note(Activity.WRITE_PICTURES, began, time.time())
    if lanes := spans.take():
        rows.append(json.dumps({"spans": lanes}))
    return {"row": np.array(rows, dtype=object)}
