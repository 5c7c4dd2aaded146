"""Filling sets with Ray Data, on a real Ray."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from dreambooth.errors import InfrastructureError, UserError
from dreambooth.pipeline.placement import Placement
from dreambooth.sampling import factory
from dreambooth.sampling.drawing import DrawingTask, ModelSource
from dreambooth.sampling.factory import fill, share_out
from dreambooth.sampling.files import read_metadata
from dreambooth.sampling.picture_set import PictureSet, PictureSetState
from dreambooth.sampling.sampler import Sampler
from tests.unit.sampling.conftest import a_set, fill_by_hand
from tests.without_ray import without_ray

pytestmark = pytest.mark.usefixtures("one_thread", "local_ray")


@pytest.fixture(scope="module")
def one_thread() -> Any:
    """In Ray's processes as in this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMBOOTH_CPU_THREADS", "1")
        yield


@pytest.fixture
def source(tiny_model: Path) -> ModelSource:
    return ModelSource(str(tiny_model))


def here(sets: Sequence[PictureSet], source: ModelSource) -> list[list[str]]:
    """The digests of the same sets, drawn in this process one picture set at a time."""
    digests = []
    with without_ray():
        for pictures in sets:
            other = replace(pictures, folder=pictures.folder.with_name("here-" + pictures.prompt))
            [state] = fill([other], source, lambda done, total: None)
            digests.append(state.digests)
    return digests


def test_pictures_are_the_same_whoever_draws_them_in_whatever_batches(
    tmp_path: Path, source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes share what one draws alone, set by set."""
    two = Placement({"CPU": 1.0}, {"num_cpus": 1}, drawers=2)
    monkeypatch.setattr(factory, "placement", lambda: two)
    sets = [
        a_set(tmp_path / "dog", 11, prompt="a dog", gated=True),
        a_set(tmp_path / "cat", 6, prompt="a cat"),
    ]
    progress: list[tuple[int, int]] = []
    states = fill(sets, source, lambda done, total: progress.append((done, total)))
    assert [state.digests for state in states] == here(sets, source)
    assert progress[0] == (0, 17) and progress[-1] == (17, 17)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    told = read_metadata(states[1].files[3])
    assert told["prompt"] == "a cat" and told["model"] == "tiny"
    assert told["scheduler"] == "dpmsolver++" and int(told["seed"]) > 0


def kill_the_one_that_draws() -> int:
    """SIGKILL, as the kernel does it when memory runs out; how many it hit."""
    drawing = [
        process
        for process in psutil.Process().children(recursive=True)
        if "PictureActor" in " ".join(process.cmdline())
    ]
    for process in drawing:
        process.kill()
    return len(drawing)


def test_a_lost_process_costs_time_and_no_picture(tmp_path: Path, source: ModelSource) -> None:
    pictures = a_set(tmp_path / "dog", 20)
    killed = 0
    kept: dict[Path, int] = {}

    def on_progress(done: int, total: int) -> None:
        nonlocal killed, kept
        if done and not killed:
            killed = kill_the_one_that_draws()
            kept = {file: file.stat().st_ino for file in pictures.folder.glob("[0-9]*.png")}

    [state] = fill([pictures], source, on_progress)
    assert killed == 1 and kept
    assert [state.digests] == here([pictures], source)
    assert {file: file.stat().st_ino for file in kept} == kept


def test_a_model_that_cannot_be_loaded_is_the_authors_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no-model"):
        fill(
            [a_set(tmp_path / "dog", 2)],
            ModelSource(str(tmp_path / "no-model")),
            lambda done, total: None,
        )
    assert PictureSetState(a_set(tmp_path / "dog", 2)).present == 0


def test_a_disk_that_refuses_is_named(tmp_path: Path, source: ModelSource) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(InfrastructureError) as raised:
        fill([a_set(blocked / "dog", 2)], source, lambda done, total: None)
    assert str(blocked) in (raised.value.field or "")
    assert raised.value.reason == "WorkspaceNotWritable"
    assert blocked.read_text() and os.path.isfile(blocked)


def test_a_full_set_needs_neither_ray_nor_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = a_set(tmp_path / "dog", 2)
    fill_by_hand(pictures)
    monkeypatch.setattr(factory, "_produce", None)
    [state] = fill([pictures], ModelSource("nowhere"), lambda done, total: None)
    assert state.complete


def shares(count: int, drawers: int, **drawer: Any) -> list[int]:
    """How many pictures each list has."""
    group = DrawingTask([0] * count, [{"index": index} for index in range(count)], {"steps": 2})
    tasks = share_out([group], Placement({}, drawer, drawers))
    assert [request["index"] for task in tasks for request in task.requests] == list(range(count))
    assert all(len(task.set_index) == len(task.requests) for task in tasks)
    return [len(task.requests) for task in tasks]


def test_one_gpu_draws_without_a_pause() -> None:
    assert shares(200, 1, num_gpus=1) == [200]
    assert shares(5, 1, num_gpus=1) == [5]


def test_several_gpus_share_evenly_and_one_that_comes_late_finds_work() -> None:
    assert shares(200, 2, num_gpus=1) == [50, 50, 50, 50]
    assert shares(200, 8, num_gpus=1) == [25] * 8
    assert shares(5, 4, num_gpus=1) == [2, 2, 1]


def test_machines_without_a_gpu_take_a_batch_whenever_they_are_free() -> None:
    assert shares(20, 2, num_cpus=1) == [8, 8, 4]


def test_a_gpu_too_small_for_a_picture_is_told_as_such(
    tmp_path: Path, source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Sampler, "start", no_room)
    with without_ray(), pytest.raises(InfrastructureError, match="memory") as raised:
        fill([a_set(tmp_path / "dog", 2)], source, lambda done, total: None)
    assert raised.value.reason == "OutOfMemory"


def test_what_ray_data_prints_is_silenced_and_nothing_else() -> None:
    # Ray Data sets up its own logging when it is first asked for anything.
    factory._configure()
    logger, root = logging.getLogger("ray.data"), logging.getLogger()
    rays, everybodys = logging.StreamHandler(), logging.StreamHandler()
    for owner, handler in ((logger, rays), (logger, everybodys), (root, everybodys)):
        owner.addHandler(handler)
    try:
        factory._configure()
        assert (rays.level, everybodys.level) == (logging.CRITICAL, logging.NOTSET)
    finally:
        for owner, handler in ((logger, rays), (logger, everybodys), (root, everybodys)):
            owner.removeHandler(handler)
