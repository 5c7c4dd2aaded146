"""GPU time by stage and by try, on a clock that the test turns."""

from pathlib import Path
from typing import Any

import pytest

from dreambooth.api.manifest import parse_job
from dreambooth.errors import BudgetError, ExitCode
from dreambooth.pipeline.progress import StageName
from dreambooth.pipeline.usage import SAVE_INTERVAL_SECONDS, Accounting, GpuMeter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def meter(folder: Path, clock: Clock, **accounting: Any) -> GpuMeter:
    return GpuMeter(folder / "gpu-seconds.json", Accounting(**accounting), clock)


def test_time_is_counted_for_the_stage_that_holds_the_gpus(tmp_path: Path, clock: Clock) -> None:
    counted = meter(tmp_path, clock)
    counted.enter(StageName.PHOTOS)
    clock.passes(5)
    counted.holds(2)
    counted.enter(StageName.TRAIN)
    clock.passes(10)
    counted.enter(None)
    clock.passes(1)
    counted.tick()
    assert counted.of_stage(StageName.PHOTOS) == 0
    assert counted.of_stage(StageName.TRAIN) == 20
    assert counted.of_attempt == counted.total == 22


def test_what_the_operator_says_is_held_counts_from_the_beginning(
    tmp_path: Path, clock: Clock
) -> None:
    counted = meter(tmp_path, clock, gpus=4.0)
    counted.enter(StageName.PHOTOS)
    clock.passes(5)
    counted.holds(2)
    clock.passes(5)
    counted.tick()
    assert counted.of_stage(StageName.PHOTOS) == 40


def test_a_run_that_was_killed_loses_only_what_was_not_saved(tmp_path: Path, clock: Clock) -> None:
    killed = meter(tmp_path, clock, gpus=1.0)
    killed.enter(StageName.TRAIN)
    clock.passes(SAVE_INTERVAL_SECONDS)
    killed.tick()
    clock.passes(1)
    killed.tick()
    again = meter(tmp_path, clock, gpus=1.0)
    assert again.of_stage(StageName.TRAIN) == again.of_attempt == SAVE_INTERVAL_SECONDS


def test_tries_are_counted_apart_and_stages_over_all_of_them(tmp_path: Path, clock: Clock) -> None:
    first = meter(tmp_path, clock, attempt=1, gpus=1.0)
    first.enter(StageName.TRAIN)
    clock.passes(30)
    first.enter(None)
    second = meter(tmp_path, clock, attempt=2, gpus=1.0)
    second.enter(StageName.TRAIN)
    clock.passes(10)
    second.enter(None)
    assert second.of_stage(StageName.TRAIN) == 40
    assert second.of_attempt == 10
    assert second.total == 40


def test_the_operator_s_count_of_earlier_tries_goes_before_our_own(
    tmp_path: Path, clock: Clock
) -> None:
    first = meter(tmp_path, clock, attempt=1, gpus=1.0)
    clock.passes(30)
    first.enter(None)
    assert meter(tmp_path, clock, attempt=2, gpus=1.0, used=45.0).total == 45


def test_a_job_ends_when_its_gpu_time_is_used_up(tmp_path: Path, clock: Clock) -> None:
    counted = meter(tmp_path, clock, gpus=2.0, used=60.0, limit=100.0)
    assert counted.seconds_left() == 20
    clock.passes(15)
    counted.check()
    assert counted.seconds_left() == 5
    clock.passes(5)
    with pytest.raises(BudgetError, match=r"0\.02778 GPU-hours of 0\.02778") as raised:
        counted.check()
    assert raised.value.exit_code is ExitCode.BUDGET
    assert raised.value.field == "spec.limits.gpuHours"


@pytest.mark.parametrize("accounting", [{"gpus": 2.0}, {"limit": 1.0}, {"gpus": 0.0, "limit": 1.0}])
def test_without_a_limit_or_without_gpus_there_is_no_end(
    tmp_path: Path, clock: Clock, accounting: dict[str, float]
) -> None:
    counted = meter(tmp_path, clock, **accounting)
    clock.passes(1e6)
    counted.check()
    assert counted.seconds_left() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"attempts": 3}', '{"attempts": {"1": "x"}}'])
def test_a_torn_file_counts_as_none(tmp_path: Path, clock: Clock, text: str) -> None:
    (tmp_path / "gpu-seconds.json").write_text(text)
    assert meter(tmp_path, clock, gpus=1.0).total == 0


@pytest.mark.parametrize(("limits", "seconds"), [({}, None), ({"limits": {"gpuHours": 2}}, 7200.0)])
def test_a_run_of_one_s_own_has_the_manifest_s_limit(
    limits: dict[str, Any], seconds: float | None
) -> None:
    document = {
        "apiVersion": "dreambooth.dev/v1alpha1",
        "kind": "DreamBoothJob",
        "metadata": {"name": "rex"},
        "spec": {"subject": {"class": "dog", "photos": {"path": "photos"}}, **limits},
    }
    job = parse_job(document, "job.yaml", Path())
    assert Accounting.of(job) == Accounting(limit=seconds)
