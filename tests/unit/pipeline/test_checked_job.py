"""A job whose model has a safety checker that flags some of what is drawn."""

import re
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline

from dreambooth.errors import UserError
from dreambooth.pipeline.generate import generate_more
from dreambooth.pipeline.progress import EventKind
from dreambooth.sampling.files import read_picture
from dreambooth.workspace.layout import Workspace
from tests.jobs import lay_out
from tests.tiny_checker import ALL, add_checker, between, cosines
from tests.unit.pipeline.conftest import Run
from tests.without_ray import without_ray

CHANGES: dict[str, Any] = {
    "generation.imagesPerPrompt": 4,
    "evaluation.imagesPerPrompt": 6,
    "training.steps": 3,
}
OFF = CHANGES | {"model.safetyChecker": "disabled"}


def kept_pictures(run: Run) -> list[Path]:
    """Every picture that a model drew for the job and that is on the disk."""
    shared = Workspace(run.workspace).pictures
    ours = (run.folder.images, run.folder.evaluation)
    return [file for folder in (shared, *ours) for file in sorted(folder.rglob("*.png"))]


def near(model: Path, files: list[Path]) -> Any:
    return cosines(model, [read_picture(file) for file in files])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """The job with the checker off."""
    workspace = lay_out(tmp_path_factory.mktemp("plain") / "workspace", tiny_model)
    add_checker(workspace / "tiny")
    return Run(workspace, OFF)()


@pytest.fixture(scope="module")
def threshold(plain: Run) -> float:
    """Above which about a third of what the job draws is."""
    values = near(plain.workspace / "tiny", kept_pictures(plain))
    return between(values, len(values) // 4, len(values) // 3)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, threshold: float) -> Run:
    """The job with a checker."""
    workspace = lay_out(tmp_path_factory.mktemp("checked") / "workspace", tiny_model)
    add_checker(workspace / "tiny", threshold)
    return Run(workspace, CHANGES)()


def test_nothing_that_is_flagged_is_kept(checked: Run, threshold: float) -> None:
    files = kept_pictures(checked)
    assert (near(checked.workspace / "tiny", files) < threshold + 0.002).all()
    result = checked.result
    assert len(result["images"][0]["files"]) == 4 and result["classImages"]["count"] == 4
    for file in result["images"][0]["files"]:
        assert (checked.folder.root / file).is_file()


def test_the_result_says_that_a_checker_took_part_and_how_often_it_refused(
    checked: Run, plain: Run
) -> None:
    result = checked.result
    assert re.fullmatch("[0-9a-f]{64}", result["resolved"]["safetyChecker"])
    drawn_again = result["classImages"]["refused"].get("flagged", 0)
    drawn_again += result["images"][0]["refused"].get("flagged", 0)
    assert drawn_again > 0
    assert 0 < result["leftOut"]["measured"] < 12
    assert plain.result["resolved"]["safetyChecker"] == "none"
    assert plain.result["leftOut"] == {"measured": 0, "contactSheet": 0}
    assert plain.result["images"][0]["refused"] == {}


def test_what_is_measured_and_shown_side_by_side_comes_from_the_same_noise(checked: Run) -> None:
    result = checked.result
    left_out = result["leftOut"]
    assert result["quality"]["pictures"] >= 6 - left_out["measured"]
    assert any("safety checker" in note for note in result["quality"]["notes"])
    places = result["baseImages"][0]["files"]
    assert len(places) == 4 and places.count(None) == left_out["contactSheet"]
    for place, (file, base) in enumerate(zip(result["images"][0]["files"], places, strict=True)):
        if base is not None:
            assert Path(base).name == Path(file).name == f"{place:04d}.png"
    page = checked.folder.report.read_text(encoding="utf-8")
    assert page.count("left out</figcaption>") == left_out["contactSheet"]


def test_the_tuned_model_has_the_checker_for_plain_diffusers_and_without_one_it_has_none(
    checked: Run, plain: Run
) -> None:
    weights = "safety_checker/model.safetensors"
    assert (checked.folder.model / weights).samefile(checked.workspace / "tiny" / weights)
    pipeline = StableDiffusionPipeline.from_pretrained(checked.folder.model)
    assert pipeline.safety_checker is not None and pipeline.feature_extractor is not None
    assert StableDiffusionPipeline.from_pretrained(plain.folder.model).safety_checker is None
    assert not (plain.folder.model / "safety_checker").exists()


def test_the_same_command_again_does_nothing(checked: Run) -> None:
    again = Run(checked.workspace, CHANGES)()
    assert again.ran == [] and again.work.sessions == again.work.drawn == 0
    for name in ("images", "baseImages", "leftOut", "classImages", "quality"):
        assert again.result[name] == checked.result[name]


def test_more_pictures_are_checked_as_those_of_the_job_were(
    tmp_path: Path, checked: Run, threshold: float
) -> None:
    with without_ray() as work:
        files = generate_more(
            checked.workspace, checked.job.id, ["a {token} {class} at sea"], 6, 3, tmp_path / "out"
        )
    assert len(files) == 6 and work.drawn > 6
    assert (near(checked.workspace / "tiny", files) < threshold + 0.002).all()


def test_lora_weights_are_drawn_with_under_their_base_models_checker(
    tmp_path: Path, tiny_model: Path, threshold: float
) -> None:
    workspace = lay_out(tmp_path / "workspace", tiny_model)
    add_checker(workspace / "tiny", threshold)
    lora = CHANGES | {"training.method": "lora"}
    run = Run(workspace, lora)()
    assert (near(workspace / "tiny", kept_pictures(run)) < threshold + 0.002).all()
    with without_ray() as work:
        files = generate_more(workspace, run.job.id, ["a {class} at sea"], 6, 3, tmp_path / "out")
    assert work.drawn > 6 and (near(workspace / "tiny", files) < threshold + 0.002).all()


def test_a_checker_that_flags_all_ends_the_job_with_the_prompts_field_and_a_remedy(
    fresh: Path,
) -> None:
    add_checker(fresh / "tiny", ALL)
    with pytest.raises(UserError, match="safety checker flagged picture 0") as raised:
        Run(fresh)()
    assert raised.value.field == "spec.classImages.prompt" and raised.value.remedy


def test_a_checker_that_is_a_pickle_is_warned_of_once_and_the_job_goes_on(fresh: Path) -> None:
    weights = add_checker(fresh / "tiny") / "safety_checker" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    run = Run(fresh)()
    warnings = [event.message or "" for event in run.events if event.kind is EventKind.WARNING]
    [told] = [message for message in warnings if "safety checker" in message]
    assert told.startswith("tiny has a safety checker without safetensors weights")
    assert run.result["resolved"]["safetyChecker"] == "none"
