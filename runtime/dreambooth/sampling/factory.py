"""Fills sets of pictures with Ray Data.

A pool of model actors, one a GPU (or one a machine without), takes batches of requests; CPU
tasks encode and write the PNGs while the next batch is computed; the driver sees only names and
digests. What an interruption leaves is whole files, so filling goes on where it was.
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
from dreambooth.pipeline.placement import placement
from dreambooth.sampling.picture_set import PictureSet, PictureSetState
from dreambooth.sampling.settings import BATCH_SIZE, PictureRequest
from dreambooth.spans import Activity, span
from dreambooth.workspace.digest import digest_of

# Processes that may be lost (killed, out of memory) while one call fills its sets.
MAX_LOST_PROCESSES = 3

Batch = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ModelSource:
    """A model as actors load it: a diffusers folder, and LoRA weights to merge into it."""

    folder: str
    lora: str | None = None


@dataclass(frozen=True)
class _Task:
    """One batch of requests that share a sampler; plain JSON, for it travels as a string."""

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
    while tasks := _tasks(states):
        try:
            for row in _produce(tasks, sets, source):
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


def _tasks(states: Sequence[PictureSetState]) -> list[_Task]:
    by_settings: dict[str, list[tuple[int, PictureRequest]]] = {}
    for number, state in enumerate(states):
        group = by_settings.setdefault(digest_of(state.set.settings.to_json()), [])
        group.extend((number, request) for request in state.requests())
    tasks = []
    for group in by_settings.values():
        for start in range(0, len(group), BATCH_SIZE):
            part = group[start : start + BATCH_SIZE]
            tasks.append(
                _Task(
                    [number for number, _ in part],
                    [asdict(request) for _, request in part],
                    states[part[0][0]].set.settings.to_json(),
                )
            )
    return tasks


def _produce(
    tasks: Sequence[_Task], sets: Sequence[PictureSet], source: ModelSource
) -> Iterator[dict[str, Any]]:
    # Imported here, for they take seconds: who only looks what is there does without.
    import ray
    from ray.data import ActorPoolStrategy

    _quiet()
    where = placement()
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
        _write, fn_args=(list(sets),), batch_size=BATCH_SIZE, num_cpus=0.5
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


def _quiet() -> None:
    """Ray Data logs to its session's files only; progress and errors are reported by the driver."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)


class _PictureActor:
    """Holds the model; makes one batch a call."""

    def __init__(self, source: ModelSource, asked: float | None = None) -> None:
        """`asked` is when the driver asked for this process."""
        from dreambooth.sampling.devices import prepare_process
        from dreambooth.sampling.loading import load_sampler

        spans.arrived(asked)
        self._error: DreamBoothError | None = None
        with span(Activity.DEVICE_START):
            device = prepare_process()
        spans.call_this_process("drawing", os.getpid(), device.type)
        try:
            with span(Activity.MODEL_LOAD):
                self._sampler = load_sampler(source.folder, source.lora, device)
        except DreamBoothError as error:
            # Raised here it would look like a lost process.
            self._error = error

    def __call__(self, batch: Batch) -> Batch:
        from dreambooth.sampling.settings import SamplingSettings

        if self._error is not None:
            told = np.array([_told(self._error)], dtype=object)
            return {"label": told, "picture": np.zeros((1, 1, 1, 3), np.uint8)}
        task = _Task(**json.loads(str(batch["task"][0])))
        settings = SamplingSettings(**task.settings)
        requests = task.requests
        padded = requests + [requests[-1]] * (BATCH_SIZE - len(requests))
        with span(Activity.DRAW):
            pictures = self._sampler.sample(
                [request["prompt"] for request in padded],
                [request["seed"] for request in padded],
                settings,
            )[: len(requests)]
        labels = [
            {"set": number, **request}
            for number, request in zip(task.set_index, requests, strict=True)
        ]
        # What this process did since its last batch travels with the first of its pictures.
        labels[0]["spans"] = spans.take()
        return {
            "label": np.array([json.dumps(label) for label in labels], dtype=object),
            "picture": pictures,
        }


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
