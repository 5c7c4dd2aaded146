"""More pictures from a job that is done."""

from pathlib import Path

import pytest

from dreambooth.errors import UserError
from dreambooth.pipeline.generate import generate_more
from dreambooth.sampling.files import read_metadata, read_picture
from tests.unit.pipeline.conftest import Run
from tests.without_ray import Work, without_ray

PROMPT = "a {token} {class} at sea"


def draw(workspace: Path, out: Path, *, count: int = 2, seed: int = 0) -> tuple[list[Path], Work]:
    with without_ray() as work:
        return generate_more(workspace, "rex", [PROMPT], count, seed, out), work


def test_it_draws_what_was_asked_and_says_so_in_the_pictures(
    finished: Path, tmp_path: Path, undisturbed: Run
) -> None:
    files, work = draw(finished, tmp_path / "out")
    assert len(files) == 2 and all(file.is_file() for file in files)
    assert work.loaded == [str(Run(finished).folder.model)]
    told = read_metadata(files[1])
    assert told["prompt"] == "a sks dog at sea"
    assert told["job"] == "rex"
    assert told["model"] == undisturbed.result["outputs"]["modelDigest"]
    assert files[0].read_bytes() != files[1].read_bytes()


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others(
    finished: Path, tmp_path: Path
) -> None:
    first, _ = draw(finished, tmp_path / "out")
    again, _ = draw(finished, tmp_path / "elsewhere")
    other, _ = draw(finished, tmp_path / "out", seed=1)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in first]
    assert not {file.read_bytes() for file in other} & {file.read_bytes() for file in first}
    assert all(file.is_file() for file in first)


def test_asking_for_more_draws_only_the_difference(finished: Path, tmp_path: Path) -> None:
    first, _ = draw(finished, tmp_path / "out")
    before = [file.read_bytes() for file in first]
    more, work = draw(finished, tmp_path / "out", count=5)
    assert work.drawn == 3
    assert [file.read_bytes() for file in more[:2]] == before
    again, work = draw(finished, tmp_path / "out", count=5)
    assert again == more and work.drawn == 0


def test_it_draws_what_the_job_itself_would_have_drawn(finished: Path, tmp_path: Path) -> None:
    """Same model, prompt, seed and sampler: the pictures of the job, pixel for pixel."""
    with without_ray():
        [file] = generate_more(
            finished, "rex", ["photo of a {token} {class}"], 1, 0, tmp_path / "out"
        )
    run = Run(finished)
    [images] = run.read("result")["images"]
    assert (read_picture(file) == read_picture(run.folder.root / images["files"][0])).all()


def test_lora_weights_are_added_to_their_base_model(fresh: Path, tmp_path: Path) -> None:
    Run(fresh, {"training.method": "lora"})()
    files, work = draw(fresh, tmp_path / "out")
    assert len(files) == 2 and work.loaded == [str(fresh / "tiny")]


@pytest.mark.parametrize("job", ["rex", "nobody"])
def test_a_job_that_is_not_done_has_nothing_to_draw_with(
    fresh: Path, tmp_path: Path, job: str
) -> None:
    with without_ray() as work, pytest.raises(UserError, match="no finished model") as raised:
        generate_more(fresh, job, [PROMPT], 1, 0, tmp_path / "out")
    assert raised.value.reason == "JobNotFinished"
    assert not (tmp_path / "out").exists() and work.sessions == 0


def test_a_result_that_cannot_be_read_is_a_job_that_is_not_done(
    finished: Path, tmp_path: Path
) -> None:
    Run(finished).folder.result.write_text('{"name": "re')
    with without_ray(), pytest.raises(UserError, match="no finished model"):
        generate_more(finished, "rex", [PROMPT], 1, 0, tmp_path / "out")
