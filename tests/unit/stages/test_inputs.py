"""What each stage's result depends on: every field that matters, and no other."""

from typing import Any

import pytest

from dreambooth.pipeline.context import Stage
from dreambooth.pipeline.progress import StageName
from dreambooth.stages.class_images import ClassImagesStage
from dreambooth.stages.evaluate import EvaluateStage
from dreambooth.stages.generate import GenerateStage
from dreambooth.stages.photos import PhotosStage
from dreambooth.stages.train import TrainStage
from dreambooth.workspace.digest import digest_of
from tests.unit.stages.conftest import Stages

ALL: list[Stage] = [
    PhotosStage(),
    ClassImagesStage(),
    TrainStage(),
    GenerateStage(),
    EvaluateStage(),
]
# As if the stages before had made the same things whatever the manifest says: so only what a stage
# reads from the manifest itself can make a difference.
OUTPUTS: dict[StageName, dict[str, Any]] = {
    StageName.PHOTOS: {"photos": [{"file": "00.png", "digest": "p"}]},
    StageName.CLASS_IMAGES: {"digests": ["c"], "folder": "cache", "files": ["c.png"]},
    StageName.TRAIN: {"digest": "t", "lora": False},
    StageName.GENERATE: {"digests": [["g"]]},
}

PHOTOS, CLASS, TRAIN, GENERATE, EVALUATE = (stage.value for stage in StageName)


def digests(stages: Stages, changes: dict[str, Any]) -> dict[str, str]:
    context = stages.context("rex", changes, OUTPUTS)
    return {stage.name.value: digest_of(stage.inputs(context)) for stage in ALL}


@pytest.mark.parametrize(
    ("changes", "differ"),
    [
        ({"subject.class": "cat"}, {CLASS, TRAIN, GENERATE, EVALUATE}),
        ({"subject.token": "ohwx"}, {TRAIN, GENERATE, EVALUATE}),
        ({"classImages.count": 5}, {CLASS}),
        ({"classImages.prompt": "a {class}"}, {CLASS, TRAIN, EVALUATE}),
        ({"classImages.negativePrompt": "blurred"}, {CLASS, EVALUATE}),
        ({"classImages.steps": 3}, {CLASS, EVALUATE}),
        ({"classImages.guidance": 2.0}, {CLASS, EVALUATE}),
        ({"classImages.scheduler": "ddim"}, {CLASS, EVALUATE}),
        ({"classImages.seed": 3}, {CLASS, EVALUATE}),
        ({"training.method": "lora"}, {TRAIN}),
        ({"training.prompt": "a {token} {class}"}, {TRAIN, EVALUATE}),
        ({"training.steps": 13}, {TRAIN}),
        ({"training.batchSize": 3}, {TRAIN}),
        ({"training.learningRate": 0.002}, {TRAIN}),
        ({"training.learningRateSchedule": "cosine"}, {TRAIN}),
        ({"training.priorWeight": 0.5}, {TRAIN}),
        ({"training.textEncoder": False}, {TRAIN}),
        ({"training.gradientClip": 2.0}, {TRAIN}),
        ({"training.seed": 3}, {TRAIN}),
        ({"training.keep": "best"}, {TRAIN}),
        ({"generation.prompts": ["a {token} {class} at sea"]}, {GENERATE, EVALUATE}),
        ({"generation.imagesPerPrompt": 3}, {GENERATE, EVALUATE}),
        ({"generation.negativePrompt": "blurred"}, {GENERATE, EVALUATE}),
        ({"generation.steps": 3}, {GENERATE, EVALUATE}),
        ({"generation.guidance": 2.0}, {GENERATE, EVALUATE}),
        ({"generation.scheduler": "ddim"}, {GENERATE, EVALUATE}),
        ({"generation.seed": 3}, {GENERATE, EVALUATE}),
        ({"evaluation.encoder": "dino-vits16"}, {EVALUATE}),
        ({"evaluation.prompts": ["a {token} {class} asleep"]}, {EVALUATE}),
        ({"evaluation.imagesPerPrompt": 3}, {EVALUATE}),
        ({"training.checkpointEvery": 4}, set()),
        ({"cluster.workers": 2}, set()),
        ({"cluster.pool": "a100"}, set()),
        ({"retries": 1}, set()),
        ({"limits": {"gpuHours": 2, "runMinutes": 60}}, set()),
        ({"ttlSecondsAfterFinished": 60}, set()),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_a_field_makes_a_difference_where_it_is_used_and_nowhere_else(
    stages: Stages, changes: dict[str, Any], differ: set[str]
) -> None:
    before, after = digests(stages, {}), digests(stages, changes)
    assert {name for name in before if before[name] != after[name]} == differ


@pytest.mark.parametrize(
    "changes",
    [
        {"training.checkpointEvery": 4},
        {"evaluation.encoder": "dino-vits16"},
        {"generation.steps": 3},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_decides_about_the_kept_checkpoint_counts_only_when_the_best_is_kept(
    stages: Stages, changes: dict[str, Any]
) -> None:
    for keep, differs in (("best", True), ("last", False)):
        kept = {"training.keep": keep}
        before, after = digests(stages, kept), digests(stages, kept | changes)
        assert (before[TRAIN] != after[TRAIN]) is differs


def test_lora_settings_count_only_for_lora(stages: Stages) -> None:
    lora = {"training.method": "lora"}
    few, many = (digests(stages, lora | {"training.lora": {"rank": rank}}) for rank in (4, 16))
    assert few[TRAIN] != many[TRAIN]


def test_what_the_stages_before_have_made_counts(stages: Stages) -> None:
    context = stages.context("rex", {}, OUTPUTS)
    before = {stage.name.value: digest_of(stage.inputs(context)) for stage in ALL}
    changes: list[tuple[StageName, dict[str, Any], set[str]]] = [
        (StageName.PHOTOS, {"photos": []}, {TRAIN, EVALUATE}),
        (StageName.CLASS_IMAGES, {"digests": ["d"]}, {TRAIN}),
        (StageName.TRAIN, {"digest": "u", "lora": False}, {GENERATE, EVALUATE}),
        (StageName.GENERATE, {"digests": [["h"]]}, {EVALUATE}),
    ]
    for name, change, differ in changes:
        other = stages.context("rex", {}, OUTPUTS | {name: change})
        after = {stage.name.value: digest_of(stage.inputs(other)) for stage in ALL}
        assert {key for key in before if before[key] != after[key]} == differ
