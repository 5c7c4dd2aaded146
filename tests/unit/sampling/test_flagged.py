"""What becomes of pictures that the safety checker flags."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from dreambooth.errors import UserError
from dreambooth.models.schedulers import make_scheduler
from dreambooth.sampling.drawing import ModelSource
from dreambooth.sampling.factory import fill
from dreambooth.sampling.files import write_png
from dreambooth.sampling.machines import load_machine
from dreambooth.sampling.picture_set import (
    MANIFEST,
    MAX_ATTEMPTS,
    Flagged,
    PictureSet,
    PictureSetState,
)
from dreambooth.sampling.settings import PictureRequest, SamplingSettings
from dreambooth.sampling.studio import draw
from dreambooth.workspace.atomic import read_json
from dreambooth.workspace.digest import file_digest
from tests.tiny_checker import ALL, NONE, add_checker, between, cosines
from tests.unit.sampling.conftest import a_set, from_seed
from tests.without_ray import without_ray

SETTINGS = SamplingSettings("ddim", 2, 1.0)
Bad = set[tuple[int, int]]
Order = Callable[[list[PictureRequest]], list[PictureRequest]]


def fill_with(pictures: PictureSet, bad: Bad, order: Order = list, rounds: int = 99) -> Bad:
    """Draws with a checker that flags the candidates `bad`; which candidates were drawn."""
    state, drawn = PictureSetState(pictures), set()
    for _ in range(rounds):
        if not (requests := order(list(state.requests()))):
            break
        for request in requests:
            candidate = request.index, request.attempt
            drawn.add(candidate)
            if candidate in bad:
                state.flag(*candidate)
                continue
            file = pictures.file(*candidate)
            write_png(file, from_seed(request), {"seed": request.seed})
            state.add(*candidate, file_digest(file))
        state.settle()
    return drawn


@pytest.mark.parametrize("gated", [False, True])
def test_the_next_seed_takes_the_place_of_a_flagged_picture(tmp_path: Path, gated: bool) -> None:
    pictures = a_set(tmp_path / "set", 3, gated=gated)
    drawn = fill_with(pictures, {(1, 0), (1, 1)})
    assert drawn == {(0, 0), (1, 0), (2, 0), (1, 1), (1, 2)}
    state = PictureSetState(pictures)
    assert state.complete and state.refused == {"flagged": 2}
    assert state.files == [pictures.file(0, 0), pictures.file(1, 2), pictures.file(2, 0)]
    assert state.of_first_noise.keys() == {0, 2}
    assert sorted(pictures.folder.glob("*.png")) == sorted(state.files)


def test_a_picture_keeps_its_name_unless_it_is_of_another_seed(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 2)
    fill_with(pictures, {(1, 0)})
    assert [file.name for file in PictureSetState(pictures).files] == ["0000.png", "0001-1.png"]


def test_where_the_noise_matters_the_place_stays_empty(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 4, flagged=Flagged.LEFT_OUT)
    assert fill_with(pictures, {(0, 0), (2, 0)}) == {(index, 0) for index in range(4)}
    state = PictureSetState(pictures)
    assert state.complete and state.present == 4 and list(state.requests()) == []
    assert state.of_first_noise == {1: pictures.file(1, 0), 3: pictures.file(3, 0)}
    assert state.files == list(state.of_first_noise.values()) and len(state.digests) == 2
    assert state.refused == {"flagged": 2}


def test_a_set_of_which_all_are_left_out_is_not_drawn_again(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 2, flagged=Flagged.LEFT_OUT)
    fill_with(pictures, {(0, 0), (1, 0)})
    assert PictureSetState(pictures).complete and PictureSetState(pictures).files == []


@pytest.mark.parametrize(
    ("gated", "flagged"),
    [(True, Flagged.REDRAWN), (False, Flagged.REDRAWN), (False, Flagged.LEFT_OUT)],
)
def test_the_outcome_depends_neither_on_order_nor_on_interruptions(
    tmp_path: Path, gated: bool, flagged: Flagged
) -> None:
    bad = {(0, 0), (3, 0), (3, 1)}
    whole, turned, pieces = (
        a_set(tmp_path / name, 5, gated=gated, flagged=flagged)
        for name in ("whole", "turned", "pieces")
    )
    fill_with(whole, bad)
    fill_with(turned, bad, order=lambda requests: requests[::-1])
    fill_with(pieces, bad, order=lambda requests: requests[2:4], rounds=1)
    fill_with(pieces, bad)
    expected = PictureSetState(whole)
    for other in (turned, pieces):
        state = PictureSetState(other)
        assert (state.digests, state.refused) == (expected.digests, expected.refused)
        assert [file.name for file in state.files] == [file.name for file in expected.files]


def test_a_flagged_picture_is_remembered_and_one_that_is_forgotten_is_flagged_again(
    tmp_path: Path,
) -> None:
    pictures = a_set(tmp_path / "set", 3, gated=True)
    fill_with(pictures, {(1, 0)})
    before = PictureSetState(pictures).digests
    manifest = read_json(pictures.folder / MANIFEST)
    assert manifest is not None
    told = manifest["pictures"]["00001-0.png"]
    assert told["verdict"] == "flagged" and told["sha256"] is None and told["seed"] > 0
    assert fill_with(a_set(tmp_path / "set", 4, gated=True), set()) == {(3, 0)}
    (pictures.folder / MANIFEST).unlink()
    assert fill_with(pictures, {(1, 0)}) == {(1, 0)}
    assert PictureSetState(pictures).digests == before


@pytest.mark.parametrize("gated", [False, True])
def test_a_prompt_of_which_all_is_flagged_is_given_up_with_a_remedy(
    tmp_path: Path, gated: bool
) -> None:
    pictures = a_set(tmp_path / "set", 2, gated=gated)
    with pytest.raises(UserError, match="safety checker flagged picture 1 of 'a dog'") as raised:
        fill_with(pictures, {(1, attempt) for attempt in range(MAX_ATTEMPTS)})
    assert raised.value.field == "spec.classImages.prompt"
    assert raised.value.reason == "PicturesFlagged"
    assert "spec.model.safetyChecker to disabled" in str(raised.value.remedy)


@pytest.fixture
def checked(tmp_path: Path, tiny_model: Path) -> Path:
    """The small model with a checker that flags nothing."""
    return add_checker(Path(shutil.copytree(tiny_model, tmp_path / "model")))


def wanted(count: int) -> list[PictureRequest]:
    return [PictureRequest(index, 0, f"dog {index % 3}", seed=index) for index in range(count)]


def drawn_with(folder: Path, count: int) -> tuple[Any, list[bool]]:
    machine = load_machine(str(folder), None, torch.device("cpu"), str(folder))
    parts = list(draw(machine, wanted(count), SETTINGS))
    pictures = np.concatenate([part.pictures for part in parts])
    return pictures, [bool(flag) for part in parts for flag in part.flagged]


def test_what_is_drawn_is_flagged_as_by_the_pipeline_of_diffusers(checked: Path) -> None:
    pictures, none = drawn_with(checked, 11)
    near = cosines(checked, list(pictures))
    threshold = between(near, 3, 8)
    add_checker(checked, threshold)
    again, flagged = drawn_with(checked, 11)
    assert np.array_equal(again, pictures)
    assert not any(none) and flagged == list(near > threshold)
    pipeline = StableDiffusionPipeline.from_pretrained(checked)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler("ddim", dict(pipeline.scheduler.config))
    noise = [torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(11)]
    theirs = pipeline(
        [request.prompt for request in wanted(11)],
        num_inference_steps=2,
        guidance_scale=1.0,
        latents=torch.stack(noise),
    )
    assert theirs.nsfw_content_detected == flagged


def test_nothing_of_a_flagged_picture_leaves_the_process_that_drew_it(
    tmp_path: Path, checked: Path
) -> None:
    add_checker(checked, ALL)
    source = ModelSource(str(checked), checker=str(checked))
    shown = a_set(tmp_path / "set", 2, flagged=Flagged.LEFT_OUT)
    with without_ray():
        [state] = fill([shown], source, lambda done, total: None)
        with pytest.raises(UserError, match=f"with {MAX_ATTEMPTS} different seeds"):
            fill([a_set(tmp_path / "others", 2)], source, lambda done, total: None)
    assert state.complete and state.refused == {"flagged": 2}
    assert list(tmp_path.rglob("set/*.png")) == list(tmp_path.rglob("others/*.png")) == []


def test_a_checker_that_flags_nothing_changes_no_picture(tmp_path: Path, checked: Path) -> None:
    add_checker(checked, NONE)
    with without_ray():
        [plain] = fill(
            [a_set(tmp_path / "plain", 3)], ModelSource(str(checked)), lambda done, total: None
        )
        [looked_at] = fill(
            [a_set(tmp_path / "checked", 3)],
            ModelSource(str(checked), checker=str(checked)),
            lambda done, total: None,
        )
    assert looked_at.digests == plain.digests


def test_a_damaged_checker_is_the_authors_to_mend(tmp_path: Path, checked: Path) -> None:
    (checked / "safety_checker" / "model.safetensors").write_bytes(b"x" * 99)
    with without_ray(), pytest.raises(UserError, match="safety_checker cannot be loaded") as raised:
        fill(
            [a_set(tmp_path / "set", 2)],
            ModelSource(str(checked), checker=str(checked)),
            lambda done, total: None,
        )
    assert raised.value.field == "spec.model" and raised.value.remedy
