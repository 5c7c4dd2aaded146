"""One GPU, on which class images were drawn and training comes next."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dreambooth.pipeline.placement import Placement
from dreambooth.stages import train
from dreambooth.stages.train import TrainStage
from dreambooth.training import group as groups
from tests.unit.training.conftest import make_plan

SHARED = Placement({"CPU": 1, "GPU": 0.5}, {"num_gpus": 0.5}, drawers=1, overlaps=True)


class Group:
    """Workers that take their plan, tell of a step, and are done."""

    lost = False

    def __init__(self, settings: Any, listener: Any) -> None:
        self.preview, self._listener = settings.preview, listener
        self.fits_beside = False

    def give(self, plan: Any) -> None:
        self._listener({"step": 1, "loss": 0.5})
        self._listener({"step": 2, "loss": 0.5})

    def wait(self) -> None:
        """They are done."""

    def close(self) -> None:
        """They have gone."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is asked of those who draw, and what the stage tells of its steps, in order."""
    said: list[str] = []
    troupe = SimpleNamespace(
        rest=lambda: said.append("rest"),
        dismiss=lambda: said.append("dismiss"),
        hire=lambda where, count: said.append("hire"),
    )
    monkeypatch.setattr(train, "troupe", troupe)
    monkeypatch.setattr(train, "placement", lambda workers: SHARED)
    monkeypatch.setattr(train, "usable_bytes", lambda: 10**12)
    monkeypatch.setattr(groups, "TrainingGroup", Group)
    yield said


def a_context(model: Path, said: list[str]) -> Any:
    training = SimpleNamespace(
        text_encoder=True, method="lora", lora=SimpleNamespace(rank=3), batch_size=4, steps=9
    )
    return SimpleNamespace(
        job=SimpleNamespace(cluster=SimpleNamespace(workers=1), training=training),
        model=SimpleNamespace(folder=model),
        folder=SimpleNamespace(ray_train=model / "nowhere"),
        budget=SimpleNamespace(seconds_left=lambda: None),
        progress=lambda done, *_, **told: said.append(f"step {done}") if "step" in told else None,
        later=lambda call: None,
    )


def run_stage(tmp_path: Path, model: Path, said: list[str], *, fits: bool) -> TrainStage:
    stage, context = TrainStage(), a_context(model, said)
    stage.prepare(context)
    stage._group.fits_beside = fits
    stage._fit(context, make_plan(tmp_path, model, [], []))
    return stage


def test_who_drew_leaves_when_training_may_need_its_memory(
    tmp_path: Path, tiny_model: Path, asked: list[str]
) -> None:
    stage = run_stage(tmp_path, tiny_model, asked, fits=False)
    assert asked == ["dismiss", "step 1", "step 2", "hire"]
    assert (stage._group.preview.lora_rank, stage._group.preview.pairs) == (3, 4)


def test_who_drew_stays_where_there_is_room_and_rests_once_steps_are_taken(
    tmp_path: Path, tiny_model: Path, asked: list[str]
) -> None:
    run_stage(tmp_path, tiny_model, asked, fits=True)
    assert asked == ["rest", "step 1", "step 2"]


def test_a_group_that_was_lost_has_said_nothing_of_the_next(
    tmp_path: Path, tiny_model: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Group, "lost", True)
    run_stage(tmp_path, tiny_model, asked, fits=True)
    assert asked[0] == "dismiss"
