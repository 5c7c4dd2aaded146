"""Class images are shared between jobs, and only what is missing is made."""

from pathlib import Path
from typing import Any

import pytest

from dreambooth.pipeline.progress import EventKind, StageName
from dreambooth.workspace.layout import Workspace
from tests.jobs import lay_out
from tests.tiny import make_tiny_model
from tests.unit.stages.conftest import Stages


def test_a_second_job_with_the_same_class_draws_nothing_and_loads_no_model(
    stages: Stages,
) -> None:
    first = stages.class_images("rex")
    assert (first["made"], first["reused"]) == (4, 0)
    assert stages.work.drawn == 4 and not stages.found_all()
    second = stages.class_images("bella", {"subject.token": "ohwx", "training.steps": 5})
    assert (second["made"], second["reused"]) == (0, 4)
    assert stages.work.drawn == 0 and stages.work.loaded == [] and stages.found_all()
    assert second["digests"] == first["digests"] and second["folder"] == first["folder"]


def test_twenty_more_draw_twenty_and_keep_the_bytes_of_the_old(stages: Stages) -> None:
    first = stages.class_images("rex")
    folder = stages.workspace / first["folder"]
    before = {name: (folder / name).read_bytes() for name in first["files"]}
    more = stages.class_images("rex", {"classImages.count": 24})
    assert (more["made"], more["reused"]) == (20, 4)
    assert stages.work.drawn == 20
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert more["digests"][:4] == first["digests"] and len(set(more["digests"])) == 24


def test_fewer_take_the_first_of_those_that_are_there(stages: Stages) -> None:
    many = stages.class_images("rex")
    few = stages.class_images("bella", {"classImages.count": 2})
    assert few["made"] == 0 and few["digests"] == many["digests"][:2]


@pytest.mark.parametrize(
    "change",
    [
        {"classImages.prompt": "a {class} asleep"},
        {"classImages.negativePrompt": "blurred"},
        {"classImages.steps": 3},
        {"classImages.guidance": 2},
        {"classImages.scheduler": "euler"},
        {"classImages.seed": 1},
        {"subject.class": "cat"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_determines_the_pixels_is_never_mixed(stages: Stages, change: dict[str, Any]) -> None:
    first = stages.class_images("rex")
    other = stages.class_images("rex", change)
    assert (other["made"], other["reused"]) == (4, 0)
    assert stages.work.drawn == 4
    assert other["folder"] != first["folder"]
    assert len(list(Workspace(stages.workspace).pictures.iterdir())) == 2


def test_another_model_draws_its_own(stages: Stages, tmp_path: Path) -> None:
    first = stages.class_images("rex")
    make_tiny_model(stages.workspace / "other", seed=1)
    other = stages.class_images("rex", {"model.path": "other"})
    assert other["made"] == 4 and other["folder"] != first["folder"]
    assert not set(other["digests"]) & set(first["digests"])


def test_another_size_is_another_model(stages: Stages) -> None:
    """A model's size of picture is in its files, which its digest covers."""
    first = stages.class_images("rex")
    config = stages.workspace / "tiny" / "unet" / "config.json"
    config.write_text(config.read_text().replace('"sample_size": 16', '"sample_size": 8'))
    other = stages.class_images("rex")
    assert other["made"] == 4 and other["folder"] != first["folder"]


def test_the_same_model_under_another_name_shares(stages: Stages) -> None:
    first = stages.class_images("rex")
    (stages.workspace / "tiny").rename(stages.workspace / "renamed")
    again = stages.class_images("rex", {"model.path": "renamed"})
    assert again["made"] == 0 and again["digests"] == first["digests"]


def test_workspaces_do_not_share_but_agree(stages: Stages, tmp_path: Path) -> None:
    first = stages.class_images("rex")
    other = Stages(lay_out(tmp_path / "other", stages.workspace / "tiny")).class_images("rex")
    assert other["made"] == 4 and other["digests"] == first["digests"]


def test_progress_starts_with_what_is_there(stages: Stages) -> None:
    stages.class_images("rex")
    stages.class_images("rex", {"classImages.count": 6})
    reports = [
        (event.done, event.total)
        for event in stages.events
        if event.kind is EventKind.STAGE_PROGRESS and event.stage is StageName.CLASS_IMAGES
    ]
    assert reports == [(4, 6), (5, 6), (6, 6)]
