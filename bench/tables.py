"""Writes measured figures into the documentation, between marker comments."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.machine import in_words
from dreambooth.workspace.atomic import write_text

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]


def write_tables(results: dict[str, Any]) -> None:
    """Puts the tables of the quality bench into docs/quality.md."""
    for name, text in quality_tables(results).items():
        replace_between(ROOT / "docs" / "quality.md", name, text)


def quality_tables(results: dict[str, Any]) -> dict[str, str]:
    """The tables of docs/quality.md by the name of their markers."""
    rows = results["rows"]
    machines = [results["machine"], *(row["machine"] for row in rows if "machine" in row)]
    where = "; ".join(dict.fromkeys(in_words(machine) for machine in machines))
    caption = f"\nMeasured by `make bench-quality` on {where}.\n"
    return {"subjects": subjects_table(rows) + caption, "variants": variants_table(rows) + caption}


def subjects_table(rows: Sequence[Row]) -> str:
    """The defaults on each subject, mean over the training seeds."""
    lines = [
        ["Subject", "Floor", "Tuned", "Ceiling", "Gap closed", "Drift", "Diversity kept"],
    ]
    ours = [row for row in rows if row["variant"]["name"].startswith("defaults")]
    for subject in dict.fromkeys(row["subject"] for row in ours):
        of_it = [row for row in ours if row["subject"] == subject]
        lines.append(
            [
                subject,
                *(f"{_mean(of_it, key):.3f}" for key in ("floor", "fidelity", "ceiling")),
                *_scores(of_it),
            ]
        )
    lines.append(["**mean**", "", "", "", *_scores(ours)])
    return table(lines)


def variants_table(rows: Sequence[Row]) -> str:
    """Every variant, mean over subjects; the defaults also over the training seeds."""
    lines = [["Variant", "Gap closed", "Drift", "Diversity kept"]]
    names = dict.fromkeys(row["variant"]["name"].partition(", seed")[0] for row in rows)
    for name in names:
        of_it = [r for r in rows if r["variant"]["name"].partition(", seed")[0] == name]
        lines.append([name, *_scores(of_it)])
    return table(lines)


def table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first line is the head."""
    head, *body = ["| " + " | ".join(line) + " |" for line in lines]
    rule = "|---" + "|--:" * (len(lines[0]) - 1) + "|"
    return "\n".join([head, rule, *body]) + "\n"


def replace_between(file: Path, name: str, text: str) -> None:
    """Replaces what is between `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises:
        ValueError: If the file has no such markers.
    """
    before, _, after = _around(file, name)
    write_text(file, before + text + after)


def between(file: Path, name: str) -> str:
    """What is between `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises:
        ValueError: If the file has no such markers.
    """
    return _around(file, name)[1]


def _around(file: Path, name: str) -> tuple[str, str, str]:
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, opened, rest = file.read_text(encoding="utf-8").partition(begin)
    text, closed, after = rest.partition(end)
    if not (opened and closed):
        raise ValueError(f"{file} has no {begin.strip()} … {end}")
    return before + begin, text, end + after


def _scores(rows: Iterable[Row]) -> list[str]:
    rows = list(rows)
    return [
        f"{_mean(rows, 'gap_closed'):.0%}",
        f"{_mean(rows, 'drift_of_gap'):+.0%}",
        f"{_mean(rows, 'diversity_kept'):.0%}",
    ]


def _mean(rows: Iterable[Row], key: str) -> float:
    return fmean(row[key] for row in rows)
