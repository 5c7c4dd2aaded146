"""Sets of pictures and a safety checker: which it makes others of, and what comes of them."""

from pathlib import Path
from typing import Any

import pytest

from dreambooth.errors import UserError
from dreambooth.pipeline.context import StageContext
from dreambooth.sampling.files import read_picture, write_png
from dreambooth.sampling.picture_set import Flagged, PictureSet, PictureSetState
from dreambooth.sampling.settings import BATCH_SIZE
from dreambooth.stages import evaluate
from dreambooth.stages.class_images import class_pictures
from dreambooth.stages.generate import subject_sets
from dreambooth.stages.pictures import SAMPLER_VERSION
from dreambooth.stages.train import training_plan
from tests.tiny_checker import add_checker, between, cosines
from tests.unit.sampling.conftest import a_set, noise
from tests.unit.stages.conftest import Stages
from tests.unit.stages.test_inputs import OUTPUTS, TRAIN, digests

OFF = {"model.safetyChecker": "disabled"}


@pytest.fixture
def tiny(stages: Stages) -> Path:
    """The job's model, with a checker that flags nothing."""
    return add_checker(stages.workspace / "tiny")


def all_sets(context: StageContext) -> list[PictureSet]:
    return [
        class_pictures(context),
        *subject_sets(context),
        *evaluate._tuned_sets(context),
        *evaluate._base_sets(context),
    ]


def flagged(stages: Stages, tiny: Path, threshold: float, outputs: dict[str, Any]) -> list[bool]:
    files = [stages.workspace / outputs["folder"] / name for name in outputs["files"]]
    near = cosines(tiny, [read_picture(file) for file in files])
    return [bool(each > threshold) for each in near]


def test_class_images_that_are_flagged_are_drawn_again_and_the_others_are_the_same(
    stages: Stages, tiny: Path
) -> None:
    plain = stages.class_images("rex", {"classImages.count": 6, **OFF})
    folder = stages.workspace / plain["folder"]
    near = cosines(tiny, [read_picture(folder / name) for name in plain["files"]])
    threshold = between(near, 1, 3)
    add_checker(tiny, threshold)
    checked = stages.class_images("rex", {"classImages.count": 6})
    bad = flagged(stages, tiny, threshold, plain)
    assert any(bad) and not any(flagged(stages, tiny, threshold, checked))
    assert checked["refused"]["flagged"] >= sum(bad) and checked["folder"] != plain["folder"]
    for index, was_flagged in enumerate(bad):
        assert (checked["digests"][index] != plain["digests"][index]) is was_flagged
    on_disk = {file.name for file in (stages.workspace / checked["folder"]).glob("*.png")}
    assert on_disk == set(checked["files"])
    again = stages.class_images("rex", {"classImages.count": 6})
    assert again["digests"] == checked["digests"] and stages.work.drawn == 0


def test_sets_without_a_checker_keep_the_keys_that_they_always_had(stages: Stages) -> None:
    for changes in ({}, OFF):
        context = stages.context("rex", changes, OUTPUTS)
        pictures = class_pictures(context)
        assert pictures.key == {
            "model": context.model.digest,
            "prompt": pictures.prompt,
            "seed": pictures.seed,
            "sampler": pictures.settings.to_json(),
            "batch": BATCH_SIZE,
            "version": SAMPLER_VERSION,
            "gated": True,
        }
        add_checker(stages.workspace / "tiny")


def test_a_checker_is_part_of_the_key_of_every_set_and_none_that_is_off(
    stages: Stages, tiny: Path
) -> None:
    checked, off = stages.context("rex", {}, OUTPUTS), stages.context("rex", OFF, OUTPUTS)
    for ours, plain in zip(all_sets(checked), all_sets(off), strict=True):
        assert ours.key == plain.key | {"checker": checked.model.checker}
    add_checker(tiny, seed=1)
    other = stages.context("rex", {}, OUTPUTS)
    assert class_pictures(other).folder != class_pictures(checked).folder
    assert class_pictures(stages.context("rex", OFF)).folder == class_pictures(off).folder


def test_only_where_noise_is_shared_a_flagged_picture_leaves_its_place_empty(
    stages: Stages,
) -> None:
    context = stages.context("rex", {}, OUTPUTS)
    redrawn = [class_pictures(context), *subject_sets(context)]
    left_out = [*evaluate._tuned_sets(context), *evaluate._base_sets(context)]
    assert {pictures.flagged for pictures in redrawn} == {Flagged.REDRAWN}
    assert {pictures.flagged for pictures in left_out} == {Flagged.LEFT_OUT}


def test_a_whole_model_takes_the_checker_along_and_adapters_do_not(
    stages: Stages, tiny: Path
) -> None:
    lora = {"training.method": "lora"}
    for changes, kept in (({}, str(tiny)), (OFF, None), (lora, None)):
        context = stages.context("rex", changes, OUTPUTS)
        assert training_plan(context, "key").checker == kept
    assert digests(stages, {})[TRAIN] != digests(stages, OFF)[TRAIN]
    assert digests(stages, lora)[TRAIN] == digests(stages, lora | OFF)[TRAIN]


def test_where_nothing_is_left_to_measure_the_job_ends_with_a_remedy(tmp_path: Path) -> None:
    tuned, base = (
        PictureSetState(a_set(tmp_path / name, 2, flagged=Flagged.LEFT_OUT))
        for name in ("tuned", "base")
    )
    # Each of the two has a picture, but not of the same noise.
    for state, index in ((tuned, 0), (base, 1)):
        state.flag(index, 0)
        write_png(state.set.file(1 - index, 0), noise(index), {})
        state.add(1 - index, 0, "digest")
        state.settle()
    pairs = evaluate._Paired(tuned, base)
    assert (pairs.tuned, pairs.base, pairs.left_out) == ([], [], 2)
    with pytest.raises(UserError, match="every picture that would be measured") as raised:
        evaluate._check_enough([pairs], "spec.evaluation.prompts")
    assert raised.value.field == "spec.evaluation.prompts" and raised.value.remedy


def test_messages_name_the_field_that_has_the_prompt(stages: Stages) -> None:
    def fields(changes: dict[str, Any]) -> list[str]:
        context = stages.context("rex", changes, OUTPUTS)
        return [pictures.prompt_field for pictures in all_sets(context)]

    of_class, generated = "spec.classImages.prompt", "spec.generation.prompts"
    ours = ["spec.training.prompt", of_class]
    assert fields({}) == [of_class, generated, *ours, *ours, generated]
    ours = ["spec.evaluation.prompts", of_class]
    changes = {"evaluation.prompts": ["a {token} {class} asleep"]}
    assert fields(changes) == [of_class, generated, *ours, *ours, generated]
