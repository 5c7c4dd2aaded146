"""Fills sets of pictures with Ray Data.

Processes that hold the model, one a GPU (or one a machine without), take lists of requests and draw
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dreambooth import spans
from dreambooth.errors import DreamBoothError, InfrastructureError
from dreambooth.pipeline.placement import Placement, placement
from dreambooth.sampling.drawing import Batch, DrawingTask, ModelSource, no_picture, told
from dreambooth.sampling.gate import Look, look_at
from dreambooth.sampling.picture_set import PictureSet, PictureSetState
from dreambooth.sampling.settings import BATCH_SIZE
from dreambooth.sampling.troupe import Artist, troupe
from dreambooth.spans import Activity
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
# What a task takes that only waits for an artist.
ASKING_CPUS = 0.01


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
        UserError: If the gate or the safety checker leaves nothing of a prompt, or the model cannot
            be loaded.
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
                _note(states[row["set"]], row)
                present += 1
                on_progress(min(present, total), total)
            for state in states:
                if not state.complete:
                    state.settle()
        except BaseException as error:
            # Who draws may be amid a list that nobody takes any more.
            troupe.dismiss()
            if isinstance(error, RayTaskError) or not isinstance(error, (RayError, _ArtistLost)):
                raise
            lost += 1
            if lost > MAX_LOST_PROCESSES:
                raise _lost(error) from error
            # What the lost process had finished is on the disk.
            states = [PictureSetState(pictures) for pictures in sets]
        present = sum(state.present for state in states)
    return states


def _note(state: PictureSetState, row: dict[str, Any]) -> None:
    """Lets a set know of a picture that was drawn."""
    if "flagged" in row:
        state.flag(row["index"], row["attempt"])
        return
    look = Look.from_json(row["look"]) if "look" in row else None
    state.add(row["index"], row["attempt"], row["sha256"], look)


def _groups(states: Sequence[PictureSetState]) -> list[DrawingTask]:
    """All that is missing, one list for each sampler."""
    by_settings: dict[str, DrawingTask] = {}
    for number, state in enumerate(states):
        settings = state.set.settings.to_json()
        for request in state.requests():
            group = by_settings.setdefault(digest_of(settings), DrawingTask([], [], settings))
            group.set_index.append(number)
            group.requests.append(asdict(request))
    return list(by_settings.values())


def share_out(groups: Sequence[DrawingTask], where: Placement) -> list[DrawingTask]:
    """Cuts lists so that all who draw have work until the end.

    On CPUs into batches, which whoever is free takes. On GPUs into few equal parts: a list is
    drawn in batches of one size, and its last one with nothing beside it.
    """
    tasks = []
    for group in groups:
        count, size = len(group.requests), BATCH_SIZE
        if "num_gpus" in where.drawer:
            rounds = 1 if where.drawers == 1 else -(-count // (where.drawers * GPU_SHARE))
            size = -(-count // (where.drawers * rounds))
        for start in range(0, count, size):
            part = slice(start, start + size)
            tasks.append(DrawingTask(group.set_index[part], group.requests[part], group.settings))
    return tasks


def _produce(
    groups: Sequence[DrawingTask], sets: Sequence[PictureSet], source: ModelSource
) -> Iterator[dict[str, Any]]:
    # Imported here, for they take seconds: who only looks what is there does without.
    import ray
    from ray.data import TaskPoolStrategy

    _configure()
    where = placement()
    tasks = share_out(groups, where)
    artists = troupe.hire(where, len(tasks))
    rows = [
        {"task": json.dumps(asdict(task)), "artist": number % len(artists)}
        for number, task in enumerate(tasks)
    ]
    pictures = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _ask,
        fn_args=(artists, source),
        batch_size=1,
        # One more than draw: the next list is there when one is drawn.
        compute=TaskPoolStrategy(size=min(len(artists) + 1, len(tasks))),
        num_cpus=ASKING_CPUS,
    )
    written = pictures.map_batches(
        _write, fn_args=(list(sets),), batch_size=WRITTEN_TOGETHER, num_cpus=0.5
    )
    for row in written.iter_rows():
        if value := take_row(row["row"]):
            yield value


def take_row(row: str) -> dict[str, Any]:
    """What a written row tells of a picture; empty if it told of nothing but where time went.

    Raises:
        DreamBoothError: What the row tells of.
        _ArtistLost: If it tells of that.
    """
    value: dict[str, Any] = json.loads(row)
    spans.deliver(value.pop("spans", []))
    if "error" in value:
        raise pickle.loads(base64.b64decode(value["error"]))
    if "lost" in value:
        raise _ArtistLost(value["lost"])
    return value


def warm_up() -> None:
    """Sends nothing through Ray Data, so that its own processes are there when they are needed."""
    import ray

    _configure()
    ray.data.from_items([{"row": ""}]).map_batches(_nothing, num_cpus=0.5).materialize()


def _nothing(batch: Batch) -> Batch:
    return batch


class _ArtistLost(Exception):
    """A process that draws is gone."""


def _ask(batch: Batch, artists: Sequence[Artist], source: ModelSource) -> Iterator[Batch]:
    """Lets an artist draw a list of pictures, and passes on what comes."""
    from ray.exceptions import RayActorError

    try:
        yield from artists[int(batch["artist"][0])].draw(source, {"task": batch["task"]})
    except RayActorError as error:
        # Raised here it would be an error in our code, for Ray Data.
        yield no_picture(json.dumps({"lost": str(error)}))


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
    everybodys = logging.getLogger().handlers
    for handler in logging.getLogger("ray.data").handlers:
        # Not those of the whole process, which others may have hung here, too.
        if isinstance(handler, logging.StreamHandler) and handler not in everybodys:
            handler.setLevel(logging.CRITICAL)


def _write(batch: Batch, sets: Sequence[PictureSet]) -> Batch:
    import hashlib

    from dreambooth.sampling.files import write_png

    spans.call_this_process("writing", os.getpid())
    began, rows = time.time(), []
    for label, picture in zip(batch["label"], batch["picture"], strict=True):
        request = json.loads(str(label))
        if not {"error", "lost", "flagged"}.isdisjoint(request):
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
        picture = np.asarray(picture, dtype=np.uint8)
        try:
            data = write_png(file, picture, metadata)
        except DreamBoothError as error:
            rows.append(told(error))
            continue
        row = {
            "set": request["set"],
            "index": request["index"],
            "attempt": request["attempt"],
            "sha256": hashlib.sha256(data).hexdigest(),
            "spans": request.get("spans", []),
        }
        if pictures.gated:
            # Here it costs nobody's time; the driver would have to read the file again.
            row["look"] = look_at(picture).to_json()
        rows.append(json.dumps(row))
    spans.note(Activity.WRITE_PICTURES, began, time.time())
    if lanes := spans.take():
        rows.append(json.dumps({"spans": lanes}))
    return {"row": np.array(rows, dtype=object)}
