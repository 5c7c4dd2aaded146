"""Does it learn the subject, and does it leave the class alone?

Every variant is trained on every shipped subject and scored on poses that training never saw, with
the encoder that needs no download. Writes bench/results/quality.json and with it the tables of
docs/quality.md:

    python -m bench.quality                     all of it; hours on a laptop, minutes on a GPU
    python -m bench.quality --jobs 8            with eight processes side by side, on one GPU
    python -m bench.quality --only seed --merge only some variants, into the results that are there
    python -m bench.quality --tables            only write the tables anew
"""

import argparse
import functools
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench.learning import SUBJECTS, Base, Subject, Variant, run
from bench.machine import describe_machine
from bench.tables import write_tables
from dreambooth.models.defaults import EMOJI
from dreambooth.quality.encoders import Encoder, load_encoder
from dreambooth.workspace.atomic import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "quality.json"
SEEDS = (0, 1, 2)
NOTEBOOK_RATES = (5e-6, 1e-4, 2e-4, 4e-4)
Row = dict[str, Any]


def _notebook(rate: float, seed: int = 0) -> Variant:
    return Variant(
        _seeded(f"the notebook's loop, learning rate {rate:g}", seed),
        notebook=True,
        learning_rate=rate,
        schedule="constant",
        keep_best=False,
        seed=seed,
    )


def _last(seed: int = 0) -> Variant:
    name = _seeded("last checkpoint instead of the best", seed)
    return Variant(name, keep_best=False, seed=seed)


def _seeded(name: str, seed: int) -> str:
    return name if seed == 0 else f"{name}, seed {seed}"


VARIANTS = (
    *(Variant(f"defaults, seed {seed}", seed=seed) for seed in SEEDS),
    _last(),
    Variant("λ = 0", prior_weight=0.0, keep_best=False),
    Variant("class images with guidance 5", class_guidance=5.0),
    Variant("100 class images", class_images=100),
    Variant("text encoder frozen", text_encoder=False),
    Variant("LoRA, rank 8", lora_rank=8, learning_rate=EMOJI.lora_learning_rate),
    Variant("weights in bfloat16", pure_bf16=True),
    *(_notebook(rate) for rate in NOTEBOOK_RATES),
    # At the rate that suits it best, with as many seeds as our defaults have.
    *(_notebook(max(NOTEBOOK_RATES), seed) for seed in SEEDS[1:]),
    *(_last(seed) for seed in SEEDS[1:]),
)


def main() -> None:
    """Trains, scores, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", action="store_true", help="only write docs/quality.md anew")
    parser.add_argument("--only", default="", help="variants whose name has this in it")
    parser.add_argument("--subject", choices=SUBJECTS, action="append", help="only these; all")
    parser.add_argument("--merge", action="store_true", help="keep results of other variants")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side (1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file to write")
    parser.add_argument("--steps", type=int, help="optimizer steps, to try the bench out")
    options = parser.parse_args()
    if not options.tables:
        chosen = [variant for variant in VARIANTS if options.only in variant.name]
        if options.steps:
            chosen = [Variant(**asdict(v) | {"steps": options.steps}) for v in chosen]
        runs = [(name, v) for name in options.subject or SUBJECTS for v in chosen]
        if not runs:
            parser.error(f"no variant has {options.only!r} in its name")
        results = (read_json(options.results) or {}) if options.merge else {}
        # Written after every run, so that an interruption costs only those under way.
        for row in _run_all(runs, options.jobs, options.results.parent / "quality"):
            results = merged(results, row)
            write_json(options.results, results)
    if options.results == RESULTS:
        write_tables(read_json(RESULTS) or {})


def merged(results: dict[str, Any], row: Row) -> dict[str, Any]:
    """`results` with `row` in the place of an older one of the same subject and variant.

    A row that comes from another machine than the rest says so.
    """
    machine = describe_machine()
    if results.get("machine", machine) != machine:
        row = row | {"machine": machine}
    rows = [old for old in results.get("rows", []) if _key(old) != _key(row)]
    return {"machine": results.get("machine", machine), "rows": sorted([*rows, row], key=_place)}


def _key(row: Row) -> tuple[str, str]:
    return row["subject"], row["variant"]["name"]


def _place(row: Row) -> tuple[int, int]:
    """Where a row belongs: in the order of variants, then of subjects; strangers last."""
    names, subject = [variant.name for variant in VARIANTS], row["subject"]
    name = row["variant"]["name"]
    return names.index(name) if name in names else len(names), list(SUBJECTS).index(subject)


def _run_all(runs: Sequence[tuple[str, Variant]], jobs: int, sheets: Path) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        one = functools.partial(_run_one, sheets=sheets, scratch=Path(scratch))
        if jobs == 1:
            yield from map(one, runs)
            return
        with multiprocessing.get_context("spawn").Pool(min(jobs, len(runs))) as pool:
            yield from pool.imap_unordered(one, runs, chunksize=1)


def _run_one(chosen: tuple[str, Variant], sheets: Path, scratch: Path) -> Row:
    name, variant = chosen
    device, encoder = _setup()
    subject, base = _base(name, scratch)
    figures, pictures = run(variant, subject, base, encoder, device)
    print(f"{name:11s} {variant.name:40s} gap closed {figures.gap_closed:.3f}", flush=True)
    _save_sheet(pictures, sheets / f"{_file_name(variant.name)}-{name}.png")
    return {"subject": name, "variant": asdict(variant), **asdict(figures)}


@functools.cache
def _setup() -> tuple[torch.device, Encoder]:
    """What all runs of a process use."""
    gpu = torch.cuda.is_available()
    torch.set_num_threads(1 if gpu else len(os.sched_getaffinity(0)))
    return torch.device("cuda" if gpu else "cpu"), load_encoder(EMOJI.encoder, Path())


@functools.cache
def _base(name: str, scratch: Path) -> tuple[Subject, Base]:
    """A subject and the base model's pictures for it, once a process."""
    device, encoder = _setup()
    folder = scratch / f"{os.getpid()}-{name}"
    folder.mkdir()
    subject = Subject(name)
    return subject, Base(subject, device, encoder, folder)


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _save_sheet(pictures: Sequence[Image.Image], file: Path) -> None:
    side = pictures[0].width
    sheet = Image.new("RGB", (side * len(pictures), side))
    for column, picture in enumerate(pictures):
        sheet.paste(picture, (side * column, 0))
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file)


if __name__ == "__main__":
    main()
