"""The GPU's tables of docs/performance.md, from bench/results/gpu.json."""

from statistics import median
from typing import Any

from bench.machine import in_words
from bench.tables import ROOT, replace_between, table

RESULTS = ROOT / "bench" / "results" / "gpu.json"
DOCUMENT = ROOT / "docs" / "performance.md"
GIB = 2**30
# Machines of the sections that were not measured together with the limit.
MACHINES = "machines"
# Of tables that can do with figures of several machines.
SECTIONS_OF = {
    "gpu-numerics": ("loss-curves", "updates-kept", "same-pictures"),
    "gpu-families": ("sdxl", "sd3"),
}
Results = dict[str, Any]


def write_tables(results: Results) -> None:
    """Puts the figures into docs/performance.md."""
    for name, text in gpu_tables(results).items():
        replace_between(DOCUMENT, name, text)


def gpu_tables(results: Results) -> dict[str, str]:
    """The tables by the name of their markers; only those that have their figures."""
    if "machine" not in results.get("limit", {}):
        return {}
    on = in_words(results["limit"]["machine"])
    parts = {
        "gpu-summary": summary(results),
        "gpu-drawing": drawing_table(results),
        "gpu-training": training_table(results),
        "gpu-memory": memory_table(results),
        "gpu-break-even": break_even_table(results),
        "gpu-numerics": numerics_table(results),
        "gpu-families": families_table(results),
    }
    caption = f"Measured by `make bench-gpu` on one {on}."
    return {
        name: f"{table(lines)}\n{caption}{_elsewhere(results, name)}\n"
        for name, lines in parts.items()
        if len(lines) > 1
    }


def merged(kept: Results, found: Results) -> Results:
    """`found` with the sections it lacks taken from `kept`, which says where they were measured."""
    machine = kept.get("limit", {}).get("machine")
    before = kept.get(MACHINES, {})
    elsewhere = {
        name: before.get(name, machine) for name in kept if name not in found and name != MACHINES
    }
    return {**kept, **found, MACHINES: elsewhere}


def _elsewhere(results: Results, part: str) -> str:
    """What of a table comes from another machine than the rest."""
    others = {
        name: in_words(machine)
        for name, machine in results.get(MACHINES, {}).items()
        if name in SECTIONS_OF.get(part, ())
    }
    return "".join(
        f" What `--section {name}` measures: on one {on}." for name, on in others.items()
    )


Lines = list[list[str]]


def summary(results: Results) -> Lines:
    """Ours against the notebook, diffusers' script and the limit, one picture and one step."""
    limit = results["limit"]
    pictures = _rows(results, "notebook-generation").get("seconds_a_picture")
    steps = _rows(results, "notebook-training").get("ms")
    drawn = {name: (row["seconds_a_picture"], row) for name, row in _drawn(results).items()}
    stepped = {name: (row["ms"], row) for name, row in _stepped(results).items()}
    return [
        ["Work", "Time", "Against the notebook", "Of the limit", "Memory"],
        *_against("a picture", "{:.3f} s", pictures, limit["picture_s"], drawn),
        *_against("a step", "{:.1f} ms", steps, limit["step_ms"], stepped),
    ]


def _against(
    work: str,
    unit: str,
    notebook: float | None,
    floor: float,
    found: dict[str, tuple[float, dict[str, Any]]],
) -> Lines:
    """The limit, and every way's time with what else is known of it."""
    limit = [f"{work}: physical limit", unit.format(floor), times(notebook, floor), "100 %", ""]
    return [
        limit,
        *(
            [
                f"{work}: {name}",
                unit.format(time),
                times(notebook, time),
                f"{floor / time:.0%}",
                _gib(row.get("peak_gib")),
            ]
            for name, (time, row) in found.items()
        ),
    ]


def _drawn(results: Results) -> dict[str, dict[str, Any]]:
    rows = {
        "notebook, one a call": _rows(results, "notebook-generation"),
        "diffusers' script, 4 a call": _rows(results, "peer-generation"),
        "`dreambooth`": _rows(results, "stream"),
    }
    batches = [row for row in _list(results, "drawing") if "seconds_a_picture" in row]
    if batches:
        best = min(batches, key=lambda row: float(row["seconds_a_picture"]))
        rows[f"`dreambooth`, {best['batch']} a call"] = best
    jobs = [row for row in _list(results, "job") if row.get("class_images_a_second")]
    if jobs:
        rate = median(row["class_images_a_second"] for row in jobs)
        rows["`dreambooth`, in a job, with Ray"] = {"seconds_a_picture": 1 / rate}
    return {name: row for name, row in rows.items() if "seconds_a_picture" in row}


def _stepped(results: Results) -> dict[str, dict[str, Any]]:
    rows = {
        "notebook": _rows(results, "notebook-training"),
        "diffusers' script, bf16 autocast": _rows(results, "peer-training"),
        "`dreambooth`": _training_row(results, "full", 2),
    }
    jobs = [row["step_ms"] for row in _list(results, "job") if row.get("step_ms")]
    if jobs:
        rows["`dreambooth`, in a job, with Ray"] = {"ms": median(jobs)}
    return {name: row for name, row in rows.items() if "ms" in row}


def drawing_table(results: Results) -> Lines:
    """Pictures by batch."""
    limit = results["limit"]["picture_s"]
    lines = [["Batch", "A picture", "Images/s", "Of the limit", "Set-up", "Memory"]]
    for row in _list(results, "drawing"):
        if "seconds_a_picture" not in row:
            continue
        seconds = row["seconds_a_picture"]
        lines.append(
            [
                str(row["batch"]),
                f"{seconds:.3f} s",
                f"{1 / seconds:.2f}",
                f"{limit / seconds:.0%}",
                f"{row['setup_s']:.1f} s",
                _gib(row["peak_gib"]),
            ]
        )
    return lines


def break_even_table(results: Results) -> Lines:
    """After how many pictures and steps what is prepared has paid, against the notebook's loops."""
    batches = [r for r in _list(results, "drawing") if "seconds_a_picture" in r]
    theirs = _rows(results, "notebook-generation").get("seconds_a_picture")
    lines = [["Work", "Set-up", "Saved by each", "Pays after"]]
    if batches and theirs:
        best = min(batches, key=lambda row: row["seconds_a_picture"])
        saved = theirs - best["seconds_a_picture"]
        pictures = f"{best['setup_s'] / saved:.0f} pictures"
        lines.append(["drawing", f"{best['setup_s']:.1f} s", f"{saved:.2f} s", pictures])
    training, theirs = (
        _training_row(results, "full", 2),
        _rows(results, "notebook-training").get("ms"),
    )
    if "ms" in training and theirs:
        saved = theirs - training["ms"]
        steps = f"{training['setup_s'] * 1e3 / saved:.0f} steps"
        lines.append(["training", f"{training['setup_s']:.1f} s", f"{saved:.0f} ms", steps])
    return lines


def training_table(results: Results) -> Lines:
    """Steps by method and batch."""
    limit = results["limit"]["image_trained_ms"]
    lines = [["Training", "A step", "Images/s", "Of the limit", "Set-up", "Memory"]]
    for row in _list(results, "training"):
        if "ms" not in row:
            continue
        images = row["images_a_second"]
        # LoRA needs no gradients of the weights: a limit of its own, which is not counted here.
        share = f"{limit * images / 1e3:.0%}" if row["method"].startswith("full") else ""
        lines.append(
            [
                f"{row['method']}, {row['pairs']} + {row['pairs']}",
                f"{row['ms']:.1f} ms",
                f"{images:.1f}",
                share,
                f"{row['setup_s']:.1f} s",
                _gib(row["peak_gib"]),
            ]
        )
    return lines


def memory_table(results: Results) -> Lines:
    """Training under a cap, and how much slower that is."""
    lines = [["Training at 2 + 2", "A step", "Slower", "Memory", "How"]]
    for row in _list(results, "memory"):
        name = f"{row['method']} in {row['cap_gb']} GB"
        if "ms" not in row:
            lines.append([name, "does not fit", "", "", ""])
            continue
        free = _training_row(results, row["method"], 2).get("ms")
        slower = f"{row['ms'] / free - 1:+.0%}" if free else ""
        engine = row["engine"]
        how = f"{engine.get('microBatches', 1)} × {engine.get('pairsAtOnce', 2)} pairs"
        if engine.get("activations") == "recomputed":
            how += ", activations recomputed"
        lines.append([name, f"{row['ms']:.1f} ms", slower, _gib(row["peak_gib"]), how])
    return lines


def numerics_table(results: Results) -> Lines:
    """What the fast path's arithmetic changes."""
    lines = [["What", "Figure"]]
    if "curves" in (curves := _rows(results, "loss-curves")):
        ours, rounded = curves["ours"], curves["float32, weights rounded once"]
        lines += [
            [
                f"losses of {curves['steps']} steps, ours against float32: mean (most) apart",
                f"{ours['mean_relative']:.2%} ({ours['most_relative']:.2%})",
            ],
            [
                "the same, float32 with its weights rounded once to bfloat16",
                f"{rounded['mean_relative']:.2%} ({rounded['most_relative']:.2%})",
            ],
            [
                "for comparison, deviation of the losses from step to step",
                f"{curves['step_to_step_deviation'] / curves['mean_loss']:.2%}",
            ],
        ]
    if "pure_progress" in (kept := _rows(results, "updates-kept")):
        for name in ("pure bfloat16", "float32 masters"):
            title = f"weights that a step at {kept['learning_rate']:g} changes, {name}"
            lines.append([title, f"{kept[name]['changed_a_step']:.1%}"])
        title = f"way that pure bfloat16 goes in {kept['steps']} steps, of that with masters"
        lines.append([title, f"{kept['pure_progress']:.0%}"])
    if "mean" in (same := _rows(results, "same-pictures")):
        lines += [
            [
                "pictures of one step together against alone: mean (most) of 255 apart",
                f"{same['mean']:.2f} ({same['most']})",
            ],
            ["for comparison, two seeds", f"{same['mean_between_seeds']:.1f}"],
        ]
    return lines


def families_table(results: Results) -> Lines:
    """Larger models, at 1024 pixels."""
    lines = [["Model", "Work", "Time", "Images/s", "Memory"]]
    for row in _list(results, "sdxl") + _list(results, "sd3"):
        if "failed" in row:
            continue
        if "ms" in row:
            work, spent = row["work"], f"{row['ms']:.0f} ms a step"
        else:
            work = f"a picture, {row['batch']} at once"
            spent = f"{row['seconds_a_picture']:.2f} s"
        images, peak = f"{row['images_a_second']:.2f}", _gib(row.get("peak_gib"))
        lines.append([row["family"], work, spent, images, peak])
    return lines


def _training_row(results: Results, method: str, pairs: int) -> dict[str, Any]:
    rows = _list(results, "training")
    return next((r for r in rows if r["method"] == method and r["pairs"] == pairs), {})


def _list(results: Results, section: str) -> list[dict[str, Any]]:
    found = results.get(section)
    return found if isinstance(found, list) else []


def _rows(results: Results, section: str) -> dict[str, Any]:
    found = results.get(section)
    return found if isinstance(found, dict) else {}


def times(base: float | None, ours: float) -> str:
    """How many times as fast as `base` ours is; nothing without the former."""
    return f"{base / ours:.1f}×" if base else ""


def _gib(value: float | None) -> str:
    return f"{value:.1f} GiB" if value else ""
