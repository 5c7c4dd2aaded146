"""A set of pictures that is filled up to a count, whatever interrupts it."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from dreambooth.errors import UserError
from dreambooth.sampling.files import write_png
from dreambooth.sampling.gate import look_at
from dreambooth.sampling.picture_set import MANIFEST, MAX_ATTEMPTS, STALE_SECONDS, PictureSetState
from dreambooth.workspace.atomic import read_json
from tests.unit.sampling.conftest import a_set, fill_by_hand, from_seed, noise, spoiled

BLACK = np.zeros((32, 32, 3), np.uint8)
FLAT = np.full((32, 32, 3), 130, np.uint8)


def test_an_empty_set_asks_for_all_pictures_each_with_a_seed_of_its_own(tmp_path: Path) -> None:
    state = PictureSetState(a_set(tmp_path / "set", 5))
    requests = list(state.requests())
    assert [request.index for request in requests] == [0, 1, 2, 3, 4]
    assert len({request.seed for request in requests}) == 5
    assert {request.prompt for request in requests} == {"a dog"}
    assert (state.present, state.complete, state.files) == (0, False, [])


def test_a_full_set_asks_for_nothing_and_has_its_files_in_order(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 3)
    fill_by_hand(pictures)
    state = PictureSetState(pictures)
    assert state.complete and list(state.requests()) == []
    assert [file.name for file in state.files] == ["0000.png", "0001.png", "0002.png"]
    assert len(set(state.digests)) == 3


@pytest.mark.parametrize("gated", [False, True])
def test_twenty_more_are_exactly_twenty_more_and_the_old_ones_stay(
    tmp_path: Path, gated: bool
) -> None:
    few, many = (a_set(tmp_path / "set", count, gated=gated) for count in (5, 25))
    fill_by_hand(few)
    before = {file: file.read_bytes() for file in PictureSetState(few).files}
    drawn = fill_by_hand(many)
    assert [request.index for request in drawn] == list(range(5, 25))
    assert {file: file.read_bytes() for file in before} == before
    assert PictureSetState(few).complete
    assert PictureSetState(many).files[:5] == list(before)


def test_fewer_than_there_are_takes_the_first_and_removes_none(tmp_path: Path) -> None:
    many, few = (a_set(tmp_path / "set", count, gated=True) for count in (6, 2))
    fill_by_hand(many)
    assert fill_by_hand(few) == []
    assert PictureSetState(few).digests == PictureSetState(many).digests[:2]
    assert PictureSetState(many).complete


@pytest.mark.parametrize("gated", [False, True])
def test_a_set_depends_neither_on_order_nor_on_where_it_was_interrupted(
    tmp_path: Path, gated: bool
) -> None:
    bad = spoiled({(1, 0): BLACK, (4, 0): noise(99), (2, 0): noise(99), (4, 1): FLAT})
    whole, turned, pieces = (
        a_set(tmp_path / name, 7, gated=gated) for name in ("whole", "turned", "pieces")
    )
    fill_by_hand(whole, bad)
    fill_by_hand(turned, bad, order=lambda requests: requests[::-1])
    for request in list(PictureSetState(pieces).requests())[2:6]:
        # Written, but the process was killed before it could tell.
        write_png(pieces.file(request.index, request.attempt), bad(request), {"seed": request.seed})
    assert PictureSetState(pieces).present > 0
    fill_by_hand(pieces, bad)
    expected = PictureSetState(whole)
    for other in (turned, pieces):
        state = PictureSetState(other)
        assert state.digests == expected.digests
        assert [file.name for file in state.files] == [file.name for file in expected.files]


def test_the_gate_replaces_black_flat_and_repeated_pictures_by_the_next_seed(
    tmp_path: Path,
) -> None:
    pictures = a_set(tmp_path / "set", 4, gated=True)
    bad = {(0, 0): BLACK, (1, 0): FLAT, (1, 1): FLAT, (2, 0): noise(5), (3, 0): noise(5)}
    drawn = fill_by_hand(pictures, spoiled(bad))
    state = PictureSetState(pictures)
    assert [file.name for file in state.files] == [
        "00000-1.png",
        "00001-2.png",
        "00002-0.png",
        "00003-1.png",
    ]
    assert state.refused == {"black": 1, "flat": 2, "duplicate": 1}
    seeds = [request.seed for request in drawn]
    assert len(set(seeds)) == len(seeds) == 8


def test_what_was_refused_is_not_drawn_again(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 2, gated=True)
    fill_by_hand(pictures, spoiled({(0, 0): BLACK}))
    more = a_set(tmp_path / "set", 3, gated=True)
    assert [(r.index, r.attempt) for r in fill_by_hand(more)] == [(2, 0)]
    assert PictureSetState(more).refused == {"black": 1}


def test_a_prompt_that_gives_nothing_usable_is_given_up_with_a_remedy(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 2, gated=True)
    with pytest.raises(UserError, match=f"black with {MAX_ATTEMPTS} different seeds") as raised:
        fill_by_hand(pictures, lambda request: BLACK)
    assert raised.value.field == "spec.classImages.prompt"
    assert raised.value.remedy


def test_without_a_gate_a_black_picture_is_a_picture(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 2)
    assert len(fill_by_hand(pictures, lambda request: BLACK)) == 2


def test_a_picture_that_was_changed_on_the_disk_is_made_again(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 3, gated=True)
    fill_by_hand(pictures)
    digests = PictureSetState(pictures).digests
    file = pictures.file(1, 0)
    file.write_bytes(file.read_bytes()[:40])
    state = PictureSetState(pictures)
    assert not state.complete and state.present == 2
    assert [request.index for request in fill_by_hand(pictures)] == [1]
    assert PictureSetState(pictures).digests == digests


def test_a_lost_or_torn_manifest_costs_no_picture(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 3, gated=True)
    fill_by_hand(pictures, spoiled({(1, 0): FLAT}))
    digests = PictureSetState(pictures).digests
    for content in (None, b'{"key": "', b"[]", b'{"pictures": 3}', b"\xff\xfe"):
        manifest = pictures.folder / MANIFEST
        manifest.unlink() if content is None else manifest.write_bytes(content)
        state = PictureSetState(pictures)
        assert state.complete and state.digests == digests
        assert PictureSetState(pictures).refused == {"flat": 1}


def test_a_folder_of_another_key_is_emptied_rather_than_mixed(tmp_path: Path) -> None:
    old, new = (a_set(tmp_path / "set", 2, model=model) for model in ("old", "new"))
    fill_by_hand(old)
    state = PictureSetState(new)
    assert state.present == 0
    assert not list((tmp_path / "set").glob("*.png"))


def test_strange_files_in_a_sets_folder_are_left_alone(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 2)
    fill_by_hand(pictures)
    for name in ("holiday.png", "0001 (copy).png", ".DS_Store"):
        (pictures.folder / name).write_bytes(b"x")
    assert PictureSetState(pictures).complete
    assert (pictures.folder / "holiday.png").exists()


def test_torn_writes_are_swept_once_nobody_can_be_writing_them_any_more(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 1)
    fill_by_hand(pictures)
    young, old = (pictures.folder / f".tmp-{name}-0000.png" for name in ("young", "old"))
    for file in (young, old):
        file.write_bytes(b"half")
    past = time.time() - STALE_SECONDS - 60
    os.utime(old, (past, past))
    PictureSetState(pictures)
    assert young.exists() and not old.exists()


def test_the_manifest_says_what_each_picture_is(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 2, gated=True)
    drawn = fill_by_hand(pictures, spoiled({(0, 0): BLACK}))
    manifest = read_json(pictures.folder / MANIFEST)
    assert manifest is not None
    assert manifest["prompt"] == "a dog" and manifest["madeFrom"] == pictures.key
    told = {name: each["verdict"] for name, each in manifest["pictures"].items()}
    assert told == {"00000-0.png": "black", "00000-1.png": "accepted", "00001-0.png": "accepted"}
    seeds = {each["seed"] for each in manifest["pictures"].values()}
    assert seeds == {request.seed for request in drawn}


def test_a_picture_is_named_by_its_own_seed_alone_whatever_the_count(tmp_path: Path) -> None:
    few, many = (
        {r.index: r.seed for r in PictureSetState(a_set(tmp_path / "s", count)).requests()}
        for count in (3, 9)
    )
    assert few.items() <= many.items()
    assert np.array_equal(noise(few[0]), from_seed(next(PictureSetState(
        a_set(tmp_path / "s", 1)).requests())))  # fmt: skip


def test_a_candidate_whose_look_is_known_is_judged_without_reading_it(tmp_path: Path) -> None:
    pictures = a_set(tmp_path / "set", 2, gated=True)
    state = PictureSetState(pictures)
    state.add(0, 0, "digest", look_at(BLACK))
    state.add(1, 0, "digest", look_at(noise(1)))
    state.settle()
    assert state.refused == {"black": 1}
    assert [(request.index, request.attempt) for request in state.requests()] == [(0, 1)]
