"""What a finished job leaves, said once at the end."""

from pathlib import Path
from typing import Any

from rich.console import Console

from dreambooth.report.words import bytes_in_words, duration, stage_title

PLACES = (
    ("Model", "model"),
    ("Pictures", "images"),
    ("Contact sheet", "contactSheet"),
    ("Report", "report"),
)


def print_summary(console: Console, result: dict[str, Any], workspace: Path) -> None:
    """Writes how good the result is, where it is and what took how long."""

    def line(text: str = "", style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    line()
    line(str(result.get("summary", "Done.")), style="bold")
    line()
    for title, path in places(result, workspace):
        line(f"{title + ':':<15}{path}")
    times = [
        f"{stage_title(stage['name']).lower()} {_spent(stage)}"
        for stage in result.get("stages", [])
    ]
    if times:
        line(f"{'Time:':<15}{' · '.join(times)}")
    timeline = result.get("timeline", {})
    if timeline.get("stages"):
        starting, whole = timeline["startUpSeconds"], timeline["seconds"]
        line(f"{'Start-up:':<15}{duration(starting)} of {duration(whole)}")
    if result.get("peakMemoryBytes"):
        line(f"{'Peak memory:':<15}{bytes_in_words(result['peakMemoryBytes'])}")


def places(result: dict[str, Any], workspace: Path) -> list[tuple[str, Path]]:
    """What the job made and where it is."""
    outputs = result.get("outputs", {})
    folder = workspace / outputs.get("folder", "")
    return [(title, folder / outputs[key]) for title, key in PLACES if key in outputs]


def _spent(stage: dict[str, Any]) -> str:
    return "cached" if stage.get("cached") else duration(stage["seconds"])
