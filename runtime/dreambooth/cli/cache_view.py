"""The cache as people see it."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dreambooth.cli.cache import Entry
from dreambooth.report.words import bytes_in_words, duration


def print_entries(console: Console, entries: Sequence[Entry], now: float) -> None:
    """A line an entry, and the total."""
    if not entries:
        console.print("Nothing is cached.", highlight=False)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("Size", "Last used"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("What", "Name", "Used by"):
        table.add_column(title, overflow="fold")
    for entry in entries:
        table.add_row(
            bytes_in_words(entry.size),
            f"{duration(entry.age(now))} ago",
            entry.kind,
            Text(entry.name),
            Text(", ".join(entry.jobs) or "–"),
        )
    console.print(table)
    console.print(f"{total_in_words(entries)} in all", highlight=False)


def print_kept(console: Console, entries: Sequence[Entry]) -> None:
    """What stays and for whom."""
    for entry in entries:
        reason = f"job {entry.running} is running" if entry.running else "a job has just started"
        console.print(
            f"Kept: {entry.kind} {entry.name} ({reason})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def total_in_words(entries: Sequence[Entry]) -> str:
    """The entries' size."""
    return bytes_in_words(sum(entry.size for entry in entries))
