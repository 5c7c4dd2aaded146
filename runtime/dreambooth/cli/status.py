"""How far jobs are, read from what they left on the workspace."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dreambooth.cli.summary import places
from dreambooth.errors import UserError
from dreambooth.pipeline.progress import StageName
from dreambooth.report.words import duration, stage_title
from dreambooth.workspace.atomic import read_json
from dreambooth.workspace.layout import JobFolder, Workspace
from dreambooth.workspace.lock import is_locked

_STYLES = {"Running": "cyan", "Succeeded": "green", "Failed": "red"}


@dataclass(frozen=True)
class JobStatus:
    """A job as its records show it.

    Attributes:
        job: The name of its folder.
        state: Running, Succeeded, Failed, Interrupted, or Stopped when its process is gone
            without a word.
        progress: Content of progress.json.
        result: Content of result.json, None until a run has finished.
    """

    job: str
    state: str
    progress: dict[str, Any]
    result: dict[str, Any] | None

    @property
    def stages(self) -> list[tuple[str, dict[str, Any]]]:
        """All five stages in order with what is known of each."""
        known = self.progress.get("stages", {})
        return [(stage.value, known.get(stage.value, {})) for stage in StageName]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "job": self.job,
            "state": self.state,
            "progress": self.progress,
            "result": self.result,
        }


def read_status(workspace: Workspace, job: str) -> JobStatus:
    """The status of one job.

    Raises:
        UserError: If the workspace has no such job.
    """
    folder = workspace.job(job)
    if not job or not folder.root.is_dir():
        there = ", ".join(job_names(workspace)) or "none"
        raise UserError(
            f"there is no job {job!r} on the workspace (jobs there: {there})",
            field=str(workspace.root),
            remedy="Give the name of one of these, or another --workspace.",
            reason="JobNotFound",
        )
    progress = read_json(folder.progress) or {}
    return JobStatus(job, _state(folder, progress), progress, read_json(folder.result))


def job_names(workspace: Workspace) -> list[str]:
    """The jobs on the workspace, by name."""
    if not workspace.jobs.is_dir():
        return []
    return sorted(
        entry.name
        for entry in workspace.jobs.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def print_status(console: Console, status: JobStatus, workspace: Path) -> None:
    """One job: its stages, and what came out or went wrong."""
    heading = Text.assemble((status.job, "bold"), "  ", _coloured(status.state))
    if status.progress.get("updated"):
        heading.append(f"  {status.progress['updated']}", "dim")
    console.print(heading)
    table = Table("Stage", "State", "Progress", "Time", box=None, pad_edge=False)
    for name, stage in status.stages:
        table.add_row(
            stage_title(name), stage.get("state", "Waiting"), Text(_progress(stage)), _time(stage)
        )
    console.print(table)
    for warning in status.progress.get("warnings", []):
        console.print(Text.assemble(("! ", "yellow"), warning))
    _print_ending(console, status, workspace)


def print_overview(console: Console, statuses: list[JobStatus]) -> None:
    """All jobs, a line each."""
    table = Table("Job", "State", "Stage", "Progress", box=None, pad_edge=False)
    for status in statuses:
        stage = status.progress.get("stage", "")
        known = status.progress.get("stages", {}).get(stage, {})
        table.add_row(status.job, _coloured(status.state), stage_title(stage), _progress(known))
    console.print(table)


def _state(folder: JobFolder, progress: dict[str, Any]) -> str:
    running = is_locked(folder.lock)
    state = str(progress.get("state", "Running" if running else "Stopped"))
    return "Stopped" if state == "Running" and not running else state


def _print_ending(console: Console, status: JobStatus, workspace: Path) -> None:
    def line(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    if status.state == "Failed":
        error = status.progress.get("error", {})
        line(str(error.get("message") or error.get("remedy") or error.get("reason") or ""), "red")
    if status.state in ("Stopped", "Interrupted"):
        line("Run the same command again; it goes on from here.")
    if status.state == "Succeeded" and status.result:
        line(str(status.result.get("summary", "")))
        for title, path in places(status.result, workspace):
            line(f"{title + ':':<15}{path}")


def _coloured(state: str) -> Text:
    return Text(state, _STYLES.get(state, "yellow"))


def _progress(stage: dict[str, Any]) -> str:
    if stage.get("cached"):
        return "cached"
    parts = []
    if stage.get("total"):
        parts.append(f"{stage.get('done', 0)}/{stage['total']} {stage.get('unit', '')}".strip())
    if stage.get("loss") is not None:
        parts.append(f"loss {stage['loss']:.3g}")
    if stage.get("state") == "Running" and stage.get("etaSeconds") is not None:
        parts.append(f"{duration(stage['etaSeconds'])} to go")
    return " · ".join(parts)


def _time(stage: dict[str, Any]) -> str:
    return duration(stage["seconds"]) if stage.get("seconds") is not None else ""
