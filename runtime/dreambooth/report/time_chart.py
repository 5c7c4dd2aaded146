"""Where a run's time went: every process a row, every activity a bar, as inline SVG and a table."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dreambooth.report.words import duration, stage_title

WIDTH, LEFT, RIGHT, TOP = 720, 132, 12, 26
ROW, BAR, FOOT = 24, 16, 22
# Processes that get a row, and activities that get a line; the file has all.
MAX_ROWS, MAX_LINES = 16, 12
# Bars narrower than this cannot be seen.
THINNEST = 0.6
TICKS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400)
KINDS = {"startUp": "starting and stopping", "work": "the job's work", "keeping": "saving"}

Row = Mapping[str, Any]


def time_chart(run: Mapping[str, Any]) -> str:
    """SVG of one run of `timeline.json`, and below it the activities that took longest.

    Returns:
        Nothing if the run did no work.
    """
    rows, seconds = run.get("spans", []), run.get("seconds", 0.0)
    if not rows or not run.get("stages") or seconds <= 0:
        return ""
    return _svg(run, rows, seconds) + _legend(rows) + _longest(rows)


def _svg(run: Mapping[str, Any], rows: Sequence[Row], seconds: float) -> str:
    processes = list(dict.fromkeys(row["process"] for row in rows))
    processes.sort(key=lambda name: name != "driver")
    shown = {name: index for index, name in enumerate(processes[:MAX_ROWS])}
    bottom = TOP + len(shown) * ROW
    height = bottom + FOOT

    def x(second: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(second / seconds, 0.0), 1.0)

    label = (
        f"{duration(seconds)} in all, {duration(run.get('startUpSeconds', 0.0))} of them in which "
        "processes started or stopped and none worked"
    )
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(label)}">'
    ]
    for stage in run["stages"]:
        start, end = x(stage["start"]), x(stage["start"] + stage["seconds"])
        parts.append(
            f'<line class="level" x1="{start:.1f}" x2="{start:.1f}" y1="{TOP - 8}" y2="{bottom}"/>'
        )
        title = stage_title(stage["name"])
        # A letter of the chart's font takes about this much.
        if end - start > 6.5 * len(title):
            parts.append(f'<text x="{start + 3:.1f}" y="{TOP - 10}">{escape(title)}</text>')
    for name, index in shown.items():
        y = TOP + index * ROW + ROW / 2 + 4
        parts.append(f'<text x="{LEFT - 6}" y="{y:.1f}" text-anchor="end">{escape(name)}</text>')
    for row in rows:
        if row["process"] in shown:
            parts.append(_bar(row, x(row["start"]), x(row["end"]), shown[row["process"]]))
    parts += [_tick(x(second), second, bottom) for second in _ticks(seconds)]
    return "".join([*parts, "</svg>"])


def _bar(row: Row, left: float, right: float, index: int) -> str:
    what = f"{row['activity']}: {duration(row['seconds'])}"
    if row["stage"]:
        what += f" ({stage_title(row['stage'])})"
    kind = row["kind"] if row["kind"] in KINDS else "keeping"
    return (
        f'<rect class="{kind}" x="{left:.1f}" width="{max(right - left, THINNEST):.1f}" '
        f'y="{TOP + index * ROW + (ROW - BAR) / 2:.1f}" height="{BAR}">'
        f"<title>{escape(what)}</title></rect>"
    )


def _ticks(seconds: float) -> list[float]:
    """Round seconds, at most about eight of them."""
    step = next((each for each in TICKS if seconds / each <= 8), None) or seconds / 8
    return [step * number for number in range(int(seconds / step) + 1)]


def _tick(x: float, second: float, bottom: float) -> str:
    side = "end" if x > WIDTH - RIGHT - 24 else "middle"
    return (
        f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="{side}">'
        f"{duration(second) if second else '0'}</text>"
    )


def _legend(rows: Sequence[Row]) -> str:
    there = {row["kind"] for row in rows}
    marks = "".join(
        f'<span><i class="mark {kind}"></i>{escape(words)}</span>'
        for kind, words in KINDS.items()
        if kind in there
    )
    hidden = len({row["process"] for row in rows}) - MAX_ROWS
    more = f" {hidden} more processes are in timeline.json." if hidden > 0 else ""
    return f'<p class="legend quiet">{marks}{more}</p>'


def _longest(rows: Sequence[Row]) -> str:
    """The activities that took longest, of all processes together."""
    sums: dict[tuple[str, str, str], float] = {}
    for row in rows:
        key = (row["stage"], row["activity"], row["kind"])
        sums[key] = sums.get(key, 0.0) + row["seconds"]
    lines = sorted(sums.items(), key=lambda item: -item[1])[:MAX_LINES]
    body = "".join(
        f'<tr><th scope="row">{escape(activity)}</th>'
        f"<td>{escape(stage_title(stage)) if stage else '–'}</td>"
        f'<td>{escape(KINDS.get(kind, kind))}</td><td class="number">{duration(seconds)}</td></tr>'
        for (stage, activity, kind), seconds in lines
    )
    return (
        '<div class="wide"><table><thead><tr><th scope="col">Activity</th>'
        '<th scope="col">Stage</th><th scope="col">Counts as</th><th scope="col">Time</th></tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )
