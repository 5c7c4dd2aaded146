"""A log that somebody follows: it does not fall silent while a stage works."""

from pathlib import Path

from dreambooth.pipeline.journal import LOG_INTERVAL_SECONDS, Journal
from dreambooth.pipeline.progress import Event, EventKind, StageName
from dreambooth.workspace.layout import JobFolder


def test_a_long_stage_gets_a_line_now_and_then(tmp_path: Path) -> None:
    now, folder = 100.0, JobFolder(tmp_path)
    note = Journal(folder, lambda: now)
    note(Event(EventKind.STAGE_STARTED, stage=StageName.TRAIN))
    for step in range(1, 91):
        now += 1.0
        note(
            Event(
                EventKind.STAGE_PROGRESS,
                stage=StageName.TRAIN,
                done=step,
                total=300,
                unit="steps",
                loss=0.12345,
            )
        )
    lines = [line.partition(" ")[2] for line in folder.log.read_text().splitlines()]
    assert lines == [
        "stageStarted train",
        *(f"stageProgress train {step}/300 steps loss 0.1235" for step in (30, 60, 90)),
    ]
    assert LOG_INTERVAL_SECONDS == 30.0
