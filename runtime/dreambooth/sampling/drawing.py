"""The process that draws, and what it is given and gives.

It knows nothing of Ray Data: what it imports is what drawing needs.
"""

import base64
import gc
import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dreambooth import spans
from dreambooth.errors import DreamBoothError
from dreambooth.sampling.settings import PictureRequest
from dreambooth.spans import Activity, span

if TYPE_CHECKING:
    from dreambooth.sampling.decoding import Drawn

Batch = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ModelSource:
    """A model as actors load it.

    Attributes:
        folder: A diffusers folder.
        lora: LoRA weights to merge into it.
        checker: A diffusers folder whose safety checker looks at what is drawn.
    """

    folder: str
    lora: str | None = None
    checker: str | None = None


@dataclass(frozen=True)
class DrawingTask:
    """Requests that share a sampler; plain JSON, for it travels as a string."""

    set_index: list[int]
    requests: list[dict[str, Any]]
    settings: dict[str, Any]


def told(error: DreamBoothError) -> str:
    """`error` as a row: Ray passes on the text of an exception, but not what made it."""
    return json.dumps({"error": base64.b64encode(pickle.dumps(error)).decode()})


def failed(error: DreamBoothError) -> Batch:
    """A row that tells of `error`."""
    return no_picture(told(error))


def no_picture(label: str) -> Batch:
    """A row that tells something else."""
    return {"label": np.array([label], dtype=object), "picture": np.zeros((1, 1, 1, 3), np.uint8)}


class PictureActor:
    """Holds a model; draws a list of pictures a call."""

    def __init__(self, asked: float | None = None) -> None:
        """`asked` is when the driver asked for this process, which has nothing to load yet."""
        # What takes long to import is imported ahead.
        import dreambooth.sampling.machines  # noqa: F401

        spans.arrived(asked)
        self._loaded: object = None
        self._machine: Any = None

    def rest(self) -> None:
        """Forgets the model."""
        from dreambooth.sampling.devices import give_memory_back

        if self._machine is not None:
            self._machine.release()
        self._loaded = self._machine = None
        gc.collect()
        give_memory_back()

    def draw(self, source: ModelSource, batch: Batch) -> Iterator[Batch]:
        """The pictures of the list in `batch` with the model `source`, part by part."""
        try:
            self._take(source)
        except DreamBoothError as error:
            # Raised here it would look like a lost process.
            yield failed(error)
            return
        yield from self._draw_list(batch)

    def _take(self, source: ModelSource) -> None:
        """Loads another model than the last time."""
        from dreambooth.sampling.devices import prepare_process
        from dreambooth.sampling.machines import load_machine

        wanted = source, _version(source)
        if wanted == self._loaded:
            return
        self.rest()
        with span(Activity.DEVICE_START):
            device = prepare_process()
        spans.call_this_process("drawing", os.getpid(), device.type)
        with span(Activity.MODEL_LOAD):
            self._machine = load_machine(source.folder, source.lora, device, source.checker)
        self._loaded = wanted

    def _draw_list(self, batch: Batch) -> Iterator[Batch]:
        task = DrawingTask(**json.loads(str(batch["task"][0])))
        labels = [
            {"set": number, **request}
            for number, request in zip(task.set_index, task.requests, strict=True)
        ]
        try:
            for drawn in self._draw(task):
                count = len(drawn.pictures)
                these, labels = labels[:count], labels[count:]
                # What this process did since its last batch travels with the first picture.
                these[0]["spans"] = spans.take()
                for number in np.flatnonzero(drawn.flagged):
                    these[number]["flagged"] = True
                    # Nobody else sees it.
                    drawn.pictures[number] = 0
                names = np.array([json.dumps(label) for label in these], dtype=object)
                yield {"label": names, "picture": drawn.pictures}
        except DreamBoothError as error:
            yield failed(error)

    def _draw(self, task: DrawingTask) -> Iterator["Drawn"]:
        from dreambooth.sampling.settings import SamplingSettings
        from dreambooth.sampling.studio import draw

        requests = [PictureRequest(**request) for request in task.requests]
        drawn = draw(self._machine, requests, SamplingSettings(**task.settings))
        while True:
            with span(Activity.DRAW):
                part = next(drawn, None)
            if part is None:
                return
            yield part


def _version(source: ModelSource) -> list[tuple[str, int, int]]:
    """Tells a model from another that was put in its place."""
    paths = {path for path in (source.folder, source.lora, source.checker) if path is not None}
    files = [file for path in paths for file in Path(path).rglob("*") if file.is_file()]
    stats = ((str(file), file.stat()) for file in sorted(files))
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
