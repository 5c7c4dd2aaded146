"""How much is done and how long the rest takes."""

import pytest

from dreambooth.drive.work import Estimate, WorkPlan
from dreambooth.pipeline.progress import StageName
from tests.unit.drive.conftest import a_job

PLAN = WorkPlan(
    {
        StageName.PHOTOS: 10.0,
        StageName.CLASS_IMAGES: 90.0,
        StageName.TRAIN: 600.0,
        StageName.GENERATE: 100.0,
        StageName.EVALUATE: 200.0,
    }
)


def test_a_plan_counts_passes_through_the_denoiser() -> None:
    plan = WorkPlan.of(
        a_job(
            classImages={"count": 10, "steps": 4, "guidance": 1},
            training={"steps": 5, "batchSize": 2},
            generation={
                "prompts": ["a {token} {class}", "a {token} {class} at sea"],
                "imagesPerPrompt": 3,
                "steps": 4,
                "guidance": 3,
            },
            evaluation={"imagesPerPrompt": 2},
        )
    )
    passes = dict(plan.passes)
    photos = passes.pop(StageName.PHOTOS)
    assert passes == {
        StageName.CLASS_IMAGES: 10 * 4,
        StageName.TRAIN: 5 * 2 * 2 * 3,
        StageName.GENERATE: 2 * 3 * 8,
        StageName.EVALUATE: 2 * 2 * (8 + 4) + 2 * 3 * 8,
    }
    assert photos == pytest.approx(sum(passes.values()) / 100)


def test_more_workers_make_training_a_smaller_part() -> None:
    alone = WorkPlan.of(a_job(training={"batchSize": 4})).passes[StageName.TRAIN]
    paired = a_job(training={"batchSize": 4}, cluster={"workers": 2})
    assert WorkPlan.of(paired).passes[StageName.TRAIN] == alone / 2


def test_nothing_is_guessed_before_something_was_measured() -> None:
    estimate = Estimate(PLAN)
    estimate.finished(StageName.PHOTOS)
    assert (estimate.percent, estimate.eta_seconds) == (1, None)


def test_what_a_stage_takes_tells_how_long_the_others_will() -> None:
    estimate = Estimate(PLAN)
    estimate.finished(StageName.PHOTOS)
    # 45 images a second of two passes each: 90 passes take two seconds for 90 images.
    estimate.progressed(StageName.CLASS_IMAGES, 45, 90, rate=45.0)
    assert estimate.percent == 5
    assert estimate.eta_seconds == round((45 + 600 + 100 + 200) * 2 / 90)
    estimate.finished(StageName.CLASS_IMAGES)
    estimate.progressed(StageName.TRAIN, 150, 300, rate=1.0)
    assert estimate.percent == 40
    assert estimate.eta_seconds == round((300 + 100 + 200) / 2)


def test_a_stage_that_an_earlier_run_finished_counts_as_done() -> None:
    estimate = Estimate(PLAN)
    for stage in (StageName.PHOTOS, StageName.CLASS_IMAGES, StageName.TRAIN):
        estimate.finished(stage)
    assert estimate.percent == 70


def test_a_job_that_is_not_over_never_has_all_of_it_done() -> None:
    estimate = Estimate(PLAN)
    for stage in StageName:
        estimate.finished(stage)
    assert estimate.percent == 99


def test_lost_work_is_work_to_do_again() -> None:
    estimate = Estimate(PLAN)
    estimate.progressed(StageName.TRAIN, 200, 300, rate=1.0)
    before = estimate.percent
    estimate.progressed(StageName.TRAIN, 150, 300, rate=None)
    assert estimate.percent == before - 10
