"""Events for people: live bars on a terminal, plain lines in a log."""

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from dreambooth.cli.json_lines import JsonListener
from dreambooth.cli.summary import print_summary
from dreambooth.pipeline.progress import Event, EventKind, Listener, StageName
from dreambooth.report.words import duration, stage_title

__all__ = ["JsonListener", "PlainListener", "TerminalListener", "listener_for"]

# A log gets a line of progress at most this often.
LOG_INTERVAL_SECONDS = 15.0

WAITING, WORKING, DONE, BROKEN = "[dim]·[/]", "[cyan]▶[/]", "[green]✓[/]", "[red]✗[/]"


def listener_for(console: Console, workspace: Path) -> Listener:
    """Bars where somebody looks at them, lines elsewhere."""
    if console.is_terminal:
        return TerminalListener(console, workspace)
    return PlainListener(console, workspace)


class TerminalListener:
    """One line a stage, redrawn in place."""

    def __init__(self, console: Console, workspace: Path) -> None:
        self._console, self._workspace = console, workspace
        self._bars = Progress(
            TextColumn("{task.fields[mark]} {task.description:<14}"),
            BarColumn(bar_width=24 if console.width >= 100 else 12),
            TextColumn("{task.fields[detail]}"),
            console=console,
        )
        self._tasks: dict[StageName, TaskID] = {}
        self._working: StageName | None = None

    def __call__(self, event: Event) -> None:
        """Shows `event`."""
        if event.kind is EventKind.JOB_STARTED:
            self._start(event)
        elif event.kind is EventKind.WARNING:
            self._console.print(Text.assemble(("! ", "yellow"), event.message or ""))
        elif event.kind is EventKind.JOB_FINISHED:
            self.close()
            print_summary(self._console, event.data, self._workspace)
        elif event.kind is EventKind.JOB_FAILED:
            self._break()
        elif event.stage is not None:
            self._show_stage(event, event.stage)

    def close(self) -> None:
        """Leaves the bars as they are and gives the terminal back."""
        self._bars.stop()

    def _start(self, event: Event) -> None:
        if event.message:
            self._console.print(event.message, markup=False, highlight=False)
        for stage in StageName:
            self._tasks[stage] = self._bars.add_task(
                stage_title(stage.value), total=1, mark=WAITING, detail=""
            )
        self._bars.start()

    def _show_stage(self, event: Event, stage: StageName) -> None:
        task = self._tasks.get(stage)
        if task is None:
            return
        if event.kind is EventKind.STAGE_FINISHED:
            self._working = None
            known = self._bars.tasks[task].total or 1
            self._bars.update(task, completed=known, mark=DONE, detail=finished_detail(event))
            return
        self._working = stage
        if event.kind is EventKind.STAGE_STARTED:
            self._bars.update(task, mark=WORKING)
            return
        total = max(event.total or 1, 1)
        detail = escape(progress_detail(event))
        self._bars.update(task, total=total, completed=event.done or 0, mark=WORKING, detail=detail)

    def _break(self) -> None:
        if self._working is not None:
            self._bars.update(self._tasks[self._working], mark=BROKEN)
        self.close()


class PlainListener:
    """One line a change, for logs: nothing is redrawn, nothing is coloured."""

    def __init__(
        self,
        console: Console,
        workspace: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._workspace, self._clock = console, workspace, clock
        self._told: dict[StageName, float] = {}

    def __call__(self, event: Event) -> None:
        """Writes `event` if it is worth a line."""
        if event.kind is EventKind.JOB_FINISHED:
            print_summary(self._console, event.data, self._workspace)
        elif event.kind is EventKind.JOB_STARTED:
            self._line(event.message or "")
        elif event.kind is EventKind.WARNING:
            self._line(f"Warning: {event.message}")
        elif event.stage is not None:
            self._stage_line(event, event.stage)

    def _stage_line(self, event: Event, stage: StageName) -> None:
        title = stage_title(stage.value)
        if event.kind is EventKind.STAGE_STARTED:
            self._line(f"{title}: started")
        elif event.kind is EventKind.STAGE_FINISHED:
            self._line(f"{title}: {finished_detail(event)}")
        elif self._due(event, stage):
            self._line(f"{title}: {progress_detail(event)}")

    def _due(self, event: Event, stage: StageName) -> bool:
        now = self._clock()
        last = self._told.setdefault(stage, now)
        if event.message is None and now - last < LOG_INTERVAL_SECONDS:
            return False
        self._told[stage] = now
        return True

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def progress_detail(event: Event) -> str:
    """How far a stage is: the most telling first, as a narrow terminal cuts the rest."""
    unit = event.unit or ""
    parts = [f"{event.done}/{event.total} {unit}".strip()]
    if event.eta_seconds is not None and (event.done or 0) < (event.total or 0):
        parts.append(f"{duration(event.eta_seconds)} to go")
    if event.loss is not None:
        parts.append(f"loss {event.loss:.3g}")
    if event.rate:
        parts.append(
            f"{event.rate:.2g} {unit}/s" if event.rate < 100 else f"{event.rate:.0f} {unit}/s"
        )
    if event.message:
        parts.append(event.message)
    return " · ".join(parts)


def finished_detail(event: Event) -> str:
    """That a stage is done: how long it took, or that an earlier run did it."""
    if event.cached:
        return "cached"
    return f"done in {duration(event.seconds)}" if event.seconds is not None else "done"
