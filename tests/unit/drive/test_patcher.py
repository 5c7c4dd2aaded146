"""Telling in the background: a target that can be away, and a job that never notices."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dreambooth.drive import patcher as module
from dreambooth.drive.patcher import ProgressPatcher
from dreambooth.drive.record import ProgressRecord
from dreambooth.drive.work import WorkPlan
from dreambooth.errors import InfrastructureError
from dreambooth.pipeline.progress import Event, EventKind, StageName
from tests.unit.drive.conftest import BEGIN, a_job
from tests.unit.drive.test_record import RESULT, begins, ends, progress, started

PATIENCE = 30.0


class Target:
    """Takes records, or refuses them as long as it is told to."""

    def __init__(self) -> None:
        self.away = False
        self.records: list[dict[str, Any]] = []
        self.refused = 0
        self._news = threading.Condition()

    def patch(self, text: str, timeout: float = 10.0) -> None:
        with self._news:
            if self.away:
                self.refused += 1
                self._news.notify_all()
                raise InfrastructureError("nobody is there")
            self.records.append(json.loads(text))
            self._news.notify_all()

    def wait_until(self, holds: Callable[["Target"], bool]) -> None:
        with self._news:
            assert self._news.wait_for(lambda: holds(self), PATIENCE)


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
def complaints() -> list[str]:
    return []


def tells(target: Target, complaints: list[str], interval: float = 600.0) -> ProgressPatcher:
    record = ProgressRecord(attempt=1, gpus=1.0, started=BEGIN)
    return ProgressPatcher(record, target, interval, complaints.append)


def test_stages_are_told_at_once_and_progress_waits(target: Target, complaints: list[str]) -> None:
    patcher = tells(target, complaints)
    target.wait_until(lambda t: len(t.records) == 1)
    patcher.plans(WorkPlan.of(a_job()))
    patcher(begins(StageName.TRAIN))
    target.wait_until(lambda t: t.records[-1].get("stage") == "train")
    told = len(target.records)
    for step in range(100):
        patcher(progress(StageName.TRAIN, step, 300, "steps"))
    patcher(ends(StageName.TRAIN))
    target.wait_until(lambda t: t.records[-1]["stages"][2]["state"] == "Succeeded")
    assert len(target.records) == told + 1
    patcher.close()
    assert complaints == []


def test_going_on_from_a_checkpoint_is_told_at_once(target: Target, complaints: list[str]) -> None:
    patcher = tells(target, complaints)
    patcher(progress(StageName.TRAIN, 75, 300, "steps", resumed_from=75))
    target.wait_until(lambda t: bool(t.records) and t.records[-1].get("resumedFromStep") == 75)
    patcher.close()
    assert target.records[-1]["progress"]["step"] == 75


def test_a_quiet_job_gives_signs_of_life(target: Target, complaints: list[str]) -> None:
    patcher = tells(target, complaints, interval=0.01)
    target.wait_until(lambda t: len(t.records) >= 4)
    patcher.close()
    assert {record["state"] for record in target.records} == {"Running"}


def test_a_server_that_is_away_is_complained_about_once_and_told_when_it_is_back(
    target: Target, complaints: list[str]
) -> None:
    target.away = True
    patcher = tells(target, complaints, interval=0.01)
    patcher(begins(StageName.PHOTOS))
    target.wait_until(lambda t: t.refused >= 3)
    target.away = False
    target.wait_until(lambda t: bool(t.records))
    patcher.close()
    assert target.records[0]["stage"] == "photos"
    assert complaints == [
        "The progress cannot be told (nobody is there); the job goes on.",
        "The progress can be told again.",
    ]


def test_the_last_record_is_told_even_if_the_server_has_to_be_asked_twice(
    target: Target, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    patcher = tells(target, complaints)
    target.wait_until(lambda t: len(t.records) == 1)
    target.away = True
    patcher(started())
    patcher(Event(EventKind.JOB_FINISHED, data=RESULT))
    closing = threading.Thread(target=patcher.close)
    closing.start()
    target.wait_until(lambda t: t.refused >= 2)
    target.away = False
    closing.join(PATIENCE)
    assert target.records[-1]["state"] == "Succeeded"


def test_a_server_that_stays_away_does_not_keep_the_job_from_ending(
    target: Target, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_WORD_SECONDS", 0.05)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    target.away = True
    patcher = tells(target, complaints)
    patcher.close()
    assert target.records == []
    assert threading.active_count() == len(
        [thread for thread in threading.enumerate() if thread.name != "progress"]
    )


def test_being_stopped_is_told_before_the_work_has_unwound(
    target: Target, complaints: list[str]
) -> None:
    patcher = tells(target, complaints)
    patcher(begins(StageName.TRAIN))
    patcher.interrupted()
    target.wait_until(lambda t: bool(t.records) and t.records[-1]["state"] == "Interrupted")
    patcher(Event(EventKind.JOB_FAILED, data={"exitCode": 3, "reason": "TrainingFailed"}))
    patcher.close()
    assert target.records[-1]["state"] == "Interrupted"
