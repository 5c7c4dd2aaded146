"""What a worker does before it has a plan."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dreambooth.models.load import load_model
from dreambooth.training import head_start, rehearsal
from dreambooth.training.distributed import Alone
from dreambooth.training.engine import EngineParts
from dreambooth.training.group import Preview
from dreambooth.training.head_start import HeadStart, get_ready
from dreambooth.training.masters import MasterEngine
from dreambooth.training.rehearsal import load_for_training, warm_up

CPU = torch.device("cpu")
ROOMY, CROWDED = 2**40, 2**33


class Told:
    """Takes what workers send to the driver."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.push = SimpleNamespace(remote=self.rows.append)


class Coming:
    """A plan that is there once it was asked about so many times."""

    def __init__(self, after: int) -> None:
        self._left = after

    def has_come(self) -> bool:
        self._left -= 1
        return self._left < 0


class Begun:
    """A worker on a CPU that takes its memory for a GPU's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.told = Told()
        self.warmed: list[Preview] = []
        self.logged: list[str] = []
        monkeypatch.setattr(head_start, "warm_up", lambda preview, _: self.warmed.append(preview))
        monkeypatch.setattr(head_start._log, "warning", lambda text, *_: self.logged.append(text))

    def gets_ready(self, folder: Path, *, free: int = ROOMY, plan_after: int = 9) -> HeadStart:
        self._monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (free, 2**41))
        coming: Any = Coming(plan_after)
        return get_ready(preview(folder), coming, Alone(), self.told)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    return Begun(monkeypatch)


def preview(folder: Path, rank: int | None = None) -> Preview:
    return Preview(str(folder), text_encoder=True, lora_rank=rank, pairs=2)


def test_where_there_is_room_steps_are_tried_and_the_model_is_loaded(
    tiny_model: Path, begun: Begun
) -> None:
    start = begun.gets_ready(tiny_model)
    assert begun.told.rows == [{"fits_beside": True}] and len(begun.warmed) == 1
    loaded = start.model
    assert loaded is not None
    assert start.take_model(str(tiny_model), CPU) is loaded
    # It is trained from then on: who asks again gets another.
    assert start.take_model(str(tiny_model), CPU) is not loaded


def test_a_model_of_another_folder_is_not_taken(tiny_model: Path, begun: Begun) -> None:
    start = begun.gets_ready(tiny_model)
    start.folder, loaded = "another", start.model
    assert start.take_model(str(tiny_model), CPU) is not loaded


def test_what_others_hold_of_the_gpu_is_left_to_them(tiny_model: Path, begun: Begun) -> None:
    start = begun.gets_ready(tiny_model, free=CROWDED)
    assert begun.told.rows == [] and begun.warmed == [] and start.model is None


@pytest.mark.parametrize(("plan_after", "warmed"), [(0, 0), (1, 1)])
def test_a_plan_that_is_there_is_not_kept_waiting(
    tiny_model: Path, begun: Begun, plan_after: int, warmed: int
) -> None:
    start = begun.gets_ready(tiny_model, plan_after=plan_after)
    assert len(begun.warmed) == warmed and start.model is None


def test_a_model_that_cannot_be_read_is_not_told_before_there_is_a_plan(
    tmp_path: Path, begun: Begun
) -> None:
    start = begun.gets_ready(tmp_path)
    assert begun.told.rows == [] and start.model is None
    assert [text[:15] for text in begun.logged] == ["not ready ahead"]


@pytest.mark.parametrize("rank", [None, 4])
def test_steps_on_nothing_are_those_of_the_training(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, rank: int | None
) -> None:
    trained: list[int] = []

    def made(parts: EngineParts, **given: Any) -> MasterEngine:
        trained.append(parts.pairs)
        return MasterEngine(parts, **given)

    monkeypatch.setattr(rehearsal, "MasterEngine", made)
    warm_up(preview(tiny_model, rank), CPU)
    assert trained == [2]


def test_what_is_trained_is_the_model_in_float32(tiny_model: Path) -> None:
    loaded, straight = load_for_training(tiny_model, CPU), load_model(tiny_model)
    weights = dict(straight.denoiser.named_parameters())
    for name, parameter in loaded.denoiser.named_parameters():
        assert parameter.dtype == torch.float32 and torch.equal(parameter, weights[name])
