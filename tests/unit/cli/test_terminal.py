"""What people see while a job runs: bars on a terminal, lines in a log."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from dreambooth.api.manifest import load_job
from dreambooth.cli.terminal import (
    LOG_INTERVAL_SECONDS,
    PlainListener,
    TerminalListener,
    finished_detail,
    listener_for,
    progress_detail,
)
from dreambooth.pipeline.progress import Event, EventKind, Listener, StageName
from tests.unit.cli.conftest import Command, succeeds


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def screen(*, terminal: bool, width: int = 110) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def play(listener: Listener) -> None:
    succeeds(load_job(Path("job.yaml")), Path("workspace"), [listener])


def progress(done: int) -> Event:
    return Event(EventKind.STAGE_PROGRESS, StageName.TRAIN, done=done, total=240, unit="steps")


def test_bars_are_for_terminals_and_lines_for_logs() -> None:
    workspace = Path("workspace")
    assert isinstance(listener_for(screen(terminal=True), workspace), TerminalListener)
    assert isinstance(listener_for(screen(terminal=False), workspace), PlainListener)


def test_a_log_gets_a_line_for_each_change_and_no_control_characters(command: Command) -> None:
    console = screen(terminal=False)
    play(PlainListener(console, Path("workspace")))
    lines = shown(console).splitlines()
    assert lines[:6] == [
        "job rex",
        "Photos: cached",
        "Warning: IMG[1].jpg is blurred",
        "Training: started",
        "Training: 120/240 steps · 1 min 3 s to go · loss 0.213 · 1.9 steps/s · "
        "going on from step 100",
        "Training: done in 3 min 5 s",
    ]
    assert "\x1b" not in shown(console)


def test_a_log_gets_progress_now_and_then(command: Command) -> None:
    console, clock = screen(terminal=False), Clock()
    listener = PlainListener(console, Path("workspace"), clock)
    for step in range(100):
        listener(progress(step))
    assert shown(console) == ""
    clock.now = LOG_INTERVAL_SECONDS
    listener(progress(100))
    listener(progress(101))
    assert shown(console).splitlines() == ["Training: 100/240 steps"]


def test_a_terminal_shows_every_stage_with_how_far_it_is(command: Command) -> None:
    console = screen(terminal=True)
    listener = TerminalListener(console, Path("workspace"))
    play(listener)
    text = shown(console)
    for expected in (
        "Photos",
        "Class pictures",
        "Training",
        "New pictures",
        "Evaluation",
        "cached",
        "done in 3 min 5 s",
        "! IMG[1].jpg is blurred",
        "78 % of the way",
        "workspace/jobs/rex/report.html",
    ):
        assert expected in text


def test_a_failed_stage_is_marked_and_the_terminal_given_back(command: Command) -> None:
    console = screen(terminal=True)
    listener = TerminalListener(console, Path("workspace"))
    listener(Event(EventKind.JOB_STARTED, message="job rex"))
    listener(Event(EventKind.STAGE_STARTED, StageName.TRAIN))
    listener(Event(EventKind.JOB_FAILED, message="no"))
    assert "✗ Training" in shown(console)
    # The cursor that bars hide is back.
    assert shown(console).rindex("\x1b[?25h") > shown(console).rindex("\x1b[?25l")


def test_a_failure_before_the_first_stage_shows_no_bars() -> None:
    console = screen(terminal=True)
    listener = TerminalListener(console, Path("workspace"))
    listener(Event(EventKind.JOB_FAILED, message="no"))
    listener.close()
    assert "Training" not in shown(console)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_stage_takes_one_line_whatever_the_width(command: Command, width: int) -> None:
    console = screen(terminal=True, width=width)
    listener = TerminalListener(console, Path("workspace"))
    listener(Event(EventKind.JOB_STARTED, message="job rex"))
    listener(
        Event(EventKind.STAGE_PROGRESS, StageName.TRAIN, done=120, total=240, unit="steps",
              loss=0.2, rate=1.9, eta_seconds=63.0, message="going on from [step] 100")
    )  # fmt: skip
    listener.close()
    last = shown(console).rsplit("Photos", 1)[1]
    assert last.count("Training") == 1
    assert "120/240 steps" in last
    assert "1 min 3 s to go" in last or width == 60
    assert len(last.split("Evaluation")[0].splitlines()) == 5


def test_time_to_go_is_not_shown_at_the_end() -> None:
    event = Event(EventKind.STAGE_PROGRESS, done=4, total=4, unit="images", eta_seconds=0.0)
    assert progress_detail(event) == "4/4 images"


def test_a_finished_stage_says_whether_it_was_done_now() -> None:
    assert finished_detail(Event(EventKind.STAGE_FINISHED, cached=True, seconds=9.0)) == "cached"
    assert finished_detail(Event(EventKind.STAGE_FINISHED, seconds=12.0)) == "done in 12 s"
