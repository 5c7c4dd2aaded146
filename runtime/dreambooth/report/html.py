"""The report for people: one HTML file that needs nothing else, not even a network.

Everything a user wrote is escaped; the page runs no script and its policy allows none.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dreambooth.report.chart import loss_chart
from dreambooth.report.explain import explained_figures
from dreambooth.report.pictures import Thumbnail, thumbnail
from dreambooth.report.style import STYLE
from dreambooth.report.time_chart import time_chart
from dreambooth.report.words import bytes_in_words, duration, flattened, stage_title
from dreambooth.workspace.atomic import read_json

# Pictures of one prompt, and of all prompts, that go into the page; all are in the images folder.
MAX_A_PROMPT = 8
MAX_IN_ALL = 96

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render_report(result: dict[str, Any], job_folder: Path, workspace: Path) -> str:
    """The report of a finished job.

    Args:
        result: Content of the job's `result.json`.
        job_folder: The job's folder, where its photos and pictures are.
        workspace: Root of the workspace, where the base model's pictures are.

    Returns:
        A whole HTML document.
    """
    name = escape(str(result["name"]))
    sections = [
        _section("Pictures", _pictures(result, job_folder, workspace)),
        _section("Quality", _quality(result)),
        _section("Photos", _photos(result, job_folder)),
        _section("Training", _training(result)),
        _section("Stages", _stages(result)),
        _section("Where the time went", _timeline(job_folder)),
        _section("Settings as used", _table(flattened(result.get("resolved", {})))),
        _section("Where things are, and what made them", _provenance(result)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name} · DreamBooth report</title><style>{STYLE}</style></head>\n"
        f'<body><main><header><p class="kicker">DreamBooth report</p><h1>{name}</h1>'
        f'<p class="summary">{escape(str(result.get("summary", "")))}</p></header>\n'
        + "\n".join(section for section in sections if section)
        + "\n</main></body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _pictures(result: dict[str, Any], job_folder: Path, workspace: Path) -> str:
    base = {entry["prompt"]: entry["files"] for entry in result.get("baseImages", [])}
    room, parts = MAX_IN_ALL, []
    for entry in result.get("images", []):
        prompt, files = entry["prompt"], entry["files"]
        shown = files[: min(MAX_A_PROMPT, room)]
        room -= len(shown)
        tuned = [thumbnail(job_folder / file) for file in shown]
        before = [
            thumbnail(workspace / file) if file else None
            for file in base.get(prompt, [])[: len(shown)]
        ]
        more = len(files) - len(shown)
        parts.append(
            f'<article><h3 class="prompt">{escape(prompt)}</h3><div class="pair">'
            + _strip("Base model", before, prompt)
            + _strip("Fine-tuned", tuned, prompt)
            + "</div>"
            + (f'<p class="quiet">and {more} more in the images folder</p>' if more else "")
            + _flagged(entry.get("refused", {}).get("flagged", 0))
            + "</article>"
        )
    if parts and base:
        parts.insert(0, '<p class="quiet">Pictures in the same place start from the same seed.</p>')
    return "".join(parts)


def _flagged(count: int) -> str:
    what = "picture was" if count == 1 else "pictures were"
    note = f"{count} {what} flagged by the model's safety checker and drawn again from other seeds"
    return f'<p class="quiet">{note}</p>' if count else ""


def _strip(title: str, pictures: Sequence[Thumbnail | None], prompt: str) -> str:
    """Pictures side by side; None keeps the place of one that is left out."""
    if not any(pictures):
        return ""
    figures = []
    for picture in pictures:
        if picture is None:
            figures.append("<figure><figcaption>left out</figcaption></figure>")
            continue
        seed = f"<figcaption>seed {escape(picture.seed)}</figcaption>" if picture.seed else ""
        figures.append(f"<figure>{_image(picture, f'{title}: {prompt}')}{seed}</figure>")
    return f'<div><h4>{title}</h4><div class="strip">{"".join(figures)}</div></div>'


def _image(picture: Thumbnail, description: str) -> str:
    return (
        f'<img src="{picture.uri}" width="{picture.width}" height="{picture.height}" '
        f'alt="{escape(description)}">'
    )


def _thumbnails(files: Iterable[Path]) -> list[Thumbnail]:
    return [picture for file in files if (picture := thumbnail(file)) is not None]


def _quality(result: dict[str, Any]) -> str:
    quality = result.get("quality", {})
    rows = "".join(
        f'<tr><th scope="row">{escape(figure.name)}</th><td class="number">{figure.value}</td>'
        f"<td>{escape(figure.meaning)}</td></tr>"
        for figure in explained_figures(quality)
    )
    if not rows:
        return ""
    notes = "".join(f'<p class="quiet">{escape(note)}</p>' for note in quality.get("notes", []))
    encoder = escape(str(quality.get("encoder", "")))
    return (
        f"<p>Measured with the image encoder <b>{encoder}</b>. Figures of different encoders "
        'cannot be compared.</p><div class="wide"><table><thead><tr><th scope="col">Figure</th>'
        '<th scope="col">Value</th><th scope="col">What it says</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{notes}"
    )


def _photos(result: dict[str, Any], job_folder: Path) -> str:
    photos = result.get("photos", {})
    accepted = photos.get("accepted", [])
    strip = "".join(
        f"<figure>{_image(picture, f'Photo {number}')}</figure>"
        for number, picture in enumerate(
            _thumbnails(job_folder / "photos" / photo["file"] for photo in accepted), start=1
        )
    )
    warnings = photos.get("report", {}).get("warnings", [])
    listed = "".join(f"<li>{escape(_warning(warning))}</li>" for warning in warnings)
    advice = (
        f'<div class="warning" role="note"><h3>Worth a look</h3><ul>{listed}</ul></div>'
        if listed
        else '<p class="quiet">Nothing about them needs attention.</p>'
    )
    return f'<div class="strip">{strip}</div>{advice}'


def _warning(warning: Any) -> str:
    """A warning in words, given as text or as a photo and a message."""
    if isinstance(warning, dict):
        return ": ".join(str(value) for value in warning.values())
    return str(warning)


def _training(result: dict[str, Any]) -> str:
    training = result.get("training", {})
    losses, kept = training.get("losses", []), training.get("keptStep")
    chart = loss_chart(losses, kept)
    if not chart:
        return ""
    parameters = training.get("trainedParameters")
    trained = f" {parameters:,} numbers were trained.".replace(",", "\u202f") if parameters else ""
    return (
        f'{chart}<p class="quiet">Loss by step: faint each step, strong the mean of the last '
        f"tenth. It jumps because every step draws its own noise level.{trained}</p>"
    )


def _stages(result: dict[str, Any]) -> str:
    timed = {stage["name"]: stage for stage in result.get("timeline", {}).get("stages", [])}
    rows, total = [], 0.0
    for stage in result.get("stages", []):
        total += stage["seconds"]
        gpu = stage.get("gpuSeconds") or 0.0
        times = timed.get(stage["name"], {})
        starting, idle = times.get("startUpSeconds"), times.get("gpuIdleShare")
        rows.append(
            f'<tr><th scope="row">{escape(stage_title(stage["name"]))}</th>'
            + _number(duration(stage["seconds"]))
            + _number(duration(starting) if starting is not None else "–")
            + _number(duration(gpu) if gpu else "–")
            + _number(f"{idle:.0%}" if idle is not None else "–")
            + f"<td>{'done by an earlier run' if stage.get('cached') else ''}</td></tr>"
        )
    if not rows:
        return ""
    peak = result.get("peakMemoryBytes")
    memory = f" Peak memory {bytes_in_words(peak)}, Ray included." if peak else ""
    heads = ("Stage", "Time", "Start-up", "GPU time", "GPU idle")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<div class="wide"><table><thead><tr>{head}'
        '<th scope="col"><span class="unseen">Remark</span></th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="quiet">{duration(total)} in all.{memory}</p>'
    )


def _number(text: str) -> str:
    return f'<td class="number">{text}</td>'


def _timeline(job_folder: Path) -> str:
    """The latest run that did something; none if the file is missing or not ours."""
    timeline = read_json(job_folder / "timeline.json")
    runs = timeline.get("runs", []) if isinstance(timeline, dict) else []
    latest = next((run for run in reversed(runs) if run.get("stages")), None)
    return time_chart(latest) if latest else ""


def _provenance(result: dict[str, Any]) -> str:
    names = ("folder", "count", "refused", "digest")
    made = {name: result.get("classImages", {}).get(name) for name in names}
    parts = [
        ("Outputs", result.get("outputs", {})),
        ("Class pictures", {key: value for key, value in made.items() if value is not None}),
        ("Versions", result.get("versions", {})),
    ]
    return "".join(
        f"<h3>{title}</h3>{_table(flattened(values))}" for title, values in parts if values
    )


def _table(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="value">{escape(value)}</td></tr>'
        for name, value in rows
    )
    return f'<div class="wide"><table class="settings"><tbody>{body}</tbody></table></div>'
