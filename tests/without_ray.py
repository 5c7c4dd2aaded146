"""The stages' own code without Ray between the parts, so that a whole job takes a second.

What Ray would run in processes of its own, the actor that draws, the task that writes and the
training worker, runs here and now. That Ray runs them right is tested where Ray is:
`test_factory`, `test_workers`, `test_telemetry`, and the jobs that the command runs.
"""

import contextlib
import functools
import itertools
import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from types import GeneratorType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dreambooth.pipeline.placement import Placement
from dreambooth.sampling.drawing import ModelSource, PictureActor
from dreambooth.training.group import GroupSettings, RayTrainRun, run_ray_train


class Work:
    """What was done in Ray's place.

    Attributes:
        sessions: How often Ray would have been started.
        loaded: The models that actors loaded, by folder.
        drawn: How many pictures actors drew.
        trainings: How often training workers were started.
    """

    def __init__(self) -> None:
        self.sessions = 0
        self.loaded: list[str] = []
        self.drawn = 0
        self.trainings = 0


@contextlib.contextmanager
def without_ray() -> Iterator[Work]:
    """Stages compute in this process while the body runs."""
    work = Work()
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    resources = {"CPU": 4.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMBOOTH_CPU_THREADS", "1")
        for module in ("session", "generate"):
            patch.setattr(f"dreambooth.pipeline.{module}.ray_session", lambda: _session(work))
        patch.setattr("ray.cluster_resources", lambda: resources)
        patch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": resources}])
        patch.setattr("ray.data.from_items", lambda rows, **_: _Batches.of(rows, work))
        patch.setattr("ray.train.torch.TorchTrainer", _trainer(work))
        patch.setattr("dreambooth.training.group.Relay", _Relay)
        patch.setattr("dreambooth.training.group.start_ray_train", _start_ray_train)
        troupe = _Troupe(work)
        patch.setattr("dreambooth.stages.class_images.warm_up", lambda: None)
        for module in ("sampling.factory", "stages.class_images", "stages.train"):
            patch.setattr(f"dreambooth.{module}.troupe", troupe)
        yield work
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@contextlib.contextmanager
def _session(work: Work) -> Iterator[None]:
    work.sessions += 1
    yield


class _Troupe:
    """Stands for the processes that draw: one, which is this."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._actor = PictureActor()
        self._source: ModelSource | None = None

    def hire(self, where: Placement, count: int) -> list["_Troupe"]:
        return [self]

    def draw(self, source: ModelSource, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if source != self._source:
            self._work.loaded.append(source.folder)
        self._source = source
        return self._actor.draw(source, batch)

    def rest(self) -> None:
        self._source = None
        self._actor.rest()

    dismiss = rest


class _Batches:
    """Stands for a data set of Ray's: a batch goes through all functions before the next does."""

    def __init__(self, batches: Iterator[dict[str, Any]], work: Work) -> None:
        self._batches, self._work = batches, work

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]], work: Work) -> "_Batches":
        work.drawn += sum(len(json.loads(row["task"])["requests"]) for row in rows)
        batches = ({name: np.array([value]) for name, value in row.items()} for row in rows)
        return cls(batches, work)

    def map_batches(
        self,
        function: Callable[..., Any],
        *,
        fn_args: Sequence[Any] = (),
        **_: Any,
    ) -> "_Batches":
        applied: Callable[[Any], Iterator[Any]] = functools.partial(_apply, function, fn_args)
        return _Batches(itertools.chain.from_iterable(map(applied, self._batches)), self._work)

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        for batch in self._batches:
            for values in zip(*batch.values(), strict=True):
                yield dict(zip(batch, values, strict=True))


def _apply(
    function: Callable[..., Any], further: Sequence[Any], batch: dict[str, Any]
) -> Iterator[Any]:
    result = function(batch, *further)
    yield from result if isinstance(result, GeneratorType) else [result]


def _trainer(work: Work) -> type[Any]:
    """Stands for Ray's trainer: one worker, started again when it fails, as often as by Ray."""

    class Trainer:
        def __init__(
            self,
            worker: Callable[[dict[str, Any]], None],
            *,
            train_loop_config: dict[str, Any],
            run_config: Any,
            **_: Any,
        ) -> None:
            self._worker, self._config = worker, train_loop_config
            self._allowed = run_config.failure_config.max_failures

        def fit(self) -> None:
            for failures in itertools.count():
                work.trainings += 1
                try:
                    return self._worker(self._config)
                except Exception:
                    if failures == self._allowed:
                        raise

    return Trainer


def _start_ray_train(settings: GroupSettings, relay: Any) -> RayTrainRun:
    """Stands for Ray Train in another process: a thread of this one."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            run_ray_train(settings, relay, time.time())
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return RayTrainRun(future, cancel=lambda: None)


class _Relay:
    """Stands for the relay between workers and driver."""

    def __init__(self, listener: Callable[[dict[str, Any]], None]) -> None:
        self._plan: Future[bytes | None] = Future()

        def push(row: dict[str, Any]) -> SimpleNamespace:
            listener(row)
            return SimpleNamespace(future=arrived)

        def plan() -> SimpleNamespace:
            return SimpleNamespace(future=lambda: self._plan)

        self.actor = SimpleNamespace(
            push=SimpleNamespace(remote=push), plan=SimpleNamespace(remote=plan)
        )

    def give(self, plan: Any) -> None:
        """Gives the plan to who waits, the first time."""
        if not self._plan.done():
            self._plan.set_result(None if plan is None else pickle.dumps(plan))

    def close(self) -> None:
        """Everything has been delivered."""


def arrived() -> Future[None]:
    """Stands for the future of a call that Ray has made."""
    future: Future[None] = Future()
    future.set_result(None)
    return future
