"""The processes that draw, and how long they stay."""

from pathlib import Path
from typing import Any

import psutil
import pytest

from dreambooth.pipeline.placement import Placement
from dreambooth.sampling import troupe as module
from dreambooth.sampling.drawing import ModelSource
from dreambooth.sampling.factory import fill
from dreambooth.sampling.troupe import Artist, Troupe, troupe
from tests.tiny import make_tiny_model
from tests.unit.sampling.conftest import a_set

ONE = Placement({"CPU": 1.0}, {"num_cpus": 1}, drawers=1)
THREE = Placement({"GPU": 1.0}, {"num_gpus": 1}, drawers=3)


class Hired:
    """Takes an artist's place."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.resting = self.gone = False

    def rest(self) -> None:
        self.resting = True

    def leave(self) -> None:
        self.gone = True


@pytest.fixture
def ray_session(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What tells one Ray from the next; artists cost nothing."""
    session = ["first"]
    monkeypatch.setattr(module, "_session", lambda: session[0])
    monkeypatch.setattr(Artist, "hired", Hired)
    return session


@pytest.mark.usefixtures("ray_session")
def test_who_is_there_is_kept_and_only_who_is_missing_is_hired() -> None:
    troupe = Troupe()
    [one] = troupe.hire(THREE, 1)
    three = troupe.hire(THREE, 7)
    assert len(three) == 3 and three[0] is one
    assert troupe.hire(THREE, 2) == three[:2]


@pytest.mark.usefixtures("ray_session")
def test_another_placement_is_another_troupe() -> None:
    troupe = Troupe()
    [old] = troupe.hire(ONE, 1)
    [new] = troupe.hire(THREE, 1)
    assert old.gone and not new.gone  # type: ignore[attr-defined]
    assert new.options == {"num_gpus": 1}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("ray_session")
def test_those_who_rest_stay_and_those_who_are_dismissed_do_not() -> None:
    troupe = Troupe()
    [artist] = troupe.hire(ONE, 1)
    troupe.rest()
    assert artist.resting and troupe.hire(ONE, 1) == [artist]  # type: ignore[attr-defined]
    troupe.dismiss()
    assert artist.gone and troupe.hire(ONE, 1) != [artist]  # type: ignore[attr-defined]


def test_nobody_outlives_the_ray_they_live_in(ray_session: list[str]) -> None:
    troupe = Troupe()
    [artist] = troupe.hire(ONE, 1)
    ray_session[0] = "second"
    assert troupe.hire(ONE, 1) != [artist]


def those_who_draw() -> set[int]:
    return {
        process.pid
        for process in psutil.Process().children(recursive=True)
        if "PictureActor" in " ".join(process.cmdline())
    }


@pytest.mark.usefixtures("local_ray")
def test_one_process_draws_for_several_calls_and_loads_what_each_asks_for(
    tmp_path: Path, tiny_model: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", seed=1)

    def drawn(folder: Path, name: str) -> list[str]:
        [state] = fill(
            [a_set(tmp_path / name, 2)], ModelSource(str(folder)), lambda done, total: None
        )
        return state.digests

    first = drawn(tiny_model, "first")
    artists = those_who_draw()
    second, again = drawn(other, "second"), drawn(tiny_model, "again")
    assert those_who_draw() == artists and len(artists) == 1
    assert first == again != second
    # Another model in the same place is noticed too.
    make_tiny_model(other, seed=2)
    assert drawn(other, "replaced") not in (first, second)
    troupe.dismiss()
