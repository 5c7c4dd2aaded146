"""A job on the terminal."""

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kubectl_dreambooth.job import JobView

STYLES = {"Succeeded": "green", "Failed": "red", "Running": "cyan"}
MARKS = {
    "Succeeded": ("✓", "green"),
    "Running": ("▶", "cyan"),
    "Failed": ("✗", "red"),
}
BAR_WIDTH = 24


def job_panel(job: JobView) -> RenderableType:
    """One job: state, stages, progress, and what came out or went wrong."""
    parts: list[RenderableType] = [_heading(job), _stages(job)]
    if job.progress.get("percent") is not None and not job.over:
        parts.append(_overall(job))
    if job.why:
        parts.append(Text(job.why, "red" if job.phase == "Failed" else "yellow"))
    if job.phase == "Succeeded":
        parts.append(_results(job))
    elif job.phase == "Suspended":
        parts.append(Text(f"kubectl dreambooth resume {job.name} goes on with it.", "dim"))
    return Group(*parts)


def print_jobs(console: Console, jobs: list[JobView]) -> None:
    """All jobs, a line each."""
    table = Table("Job", "Phase", "Stage", "Progress", "ETA", "Fidelity", box=None, pad_edge=False)
    for job in jobs:
        display = job.status.get("display") or {}
        table.add_row(
            Text(job.name),
            Text(job.phase, STYLES.get(job.phase, "yellow")),
            Text(str(job.status.get("stage", ""))),
            Text(str(display.get("progress", ""))),
            Text(str(display.get("eta", "")) if not job.over else ""),
            Text(str(display.get("fidelity", ""))),
        )
    console.print(table)


def line_of(job: JobView) -> str:
    """One line for logs, where nothing can be redrawn."""
    words = [job.phase]
    if stage := job.status.get("stage"):
        words.append(str(stage))
    progress = job.progress
    if progress.get("percent") is not None and not job.over:
        words.append(f"{progress['percent']}%")
    if progress.get("totalSteps") and job.status.get("stage") == "train":
        words.append(f"step {progress.get('step', 0)}/{progress['totalSteps']}")
    if progress.get("etaSeconds") is not None and not job.over:
        words.append(f"{duration(progress['etaSeconds'])} to go")
    if job.why:
        words.append(job.why)
    return " · ".join(words)


def duration(seconds: Any) -> str:
    """Seconds in the two largest units that say something."""
    try:
        left = round(float(seconds))
    except (TypeError, ValueError, OverflowError):
        return "?"
    days, left = divmod(max(0, left), 86_400)
    hours, left = divmod(left, 3_600)
    minutes, rest = divmod(left, 60)
    units = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next((i for i, (amount, _) in enumerate(units) if amount), 3)
    return (
        " ".join(f"{amount}{unit}" for amount, unit in units[first : first + 2] if amount) or "0s"
    )


def _heading(job: JobView) -> Text:
    text = Text.assemble((job.name, "bold"), "  ", (job.phase, STYLES.get(job.phase, "yellow")))
    attempt = job.status.get("attempt")
    if isinstance(attempt, int) and attempt > 1:
        text.append(f"  try {attempt}", "dim")
    if job.suspended and job.phase != "Suspended":
        text.append("  being suspended", "yellow")
    return text


def _stages(job: JobView) -> Table:
    table = Table.grid(padding=(0, 2))
    for title, stage in job.stages:
        mark, style = MARKS.get(str(stage.get("state")), ("·", "dim"))
        table.add_row(Text(mark, style), Text(title), _bar(stage), Text(_detail(job, stage), "dim"))
    return table


def _bar(stage: dict[str, Any]) -> RenderableType:
    done, total = stage.get("done"), stage.get("total")
    if stage.get("state") == "Succeeded":
        return ProgressBar(total=1, completed=1, width=BAR_WIDTH)
    if isinstance(done, int) and isinstance(total, int) and total > 0:
        return ProgressBar(total=total, completed=min(done, total), width=BAR_WIDTH)
    return ProgressBar(total=1, completed=0, width=BAR_WIDTH)


def _detail(job: JobView, stage: dict[str, Any]) -> str:
    if stage.get("cached"):
        return "was there already"
    parts = []
    if stage.get("total"):
        parts.append(f"{stage.get('done', 0)}/{stage['total']} {stage.get('unit', '')}".strip())
    loss = job.progress.get("loss")
    if stage.get("name") == "train" and isinstance(loss, int | float):
        parts.append(f"loss {loss:.3g}")
    if stage.get("message") and stage.get("state") != "Succeeded":
        parts.append(str(stage["message"]))
    return " · ".join(parts)


def _overall(job: JobView) -> RenderableType:
    percent = min(100, max(0, int(job.progress["percent"])))
    table = Table.grid(padding=(0, 2))
    eta = job.progress.get("etaSeconds")
    left = f"{duration(eta)} to go" if eta is not None else ""
    bar = ProgressBar(total=100, completed=percent, width=BAR_WIDTH + 17)
    table.add_row(bar, Text(f"{percent}%"), Text(left, "dim"))
    return table


def _results(job: JobView) -> RenderableType:
    quality = job.status.get("quality") or {}
    lines = [Text(str(quality["summary"]), "bold")] if quality.get("summary") else []
    lines.append(Text(f"kubectl dreambooth images {job.name} fetches pictures and report.", "dim"))
    return Group(*lines)
