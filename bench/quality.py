"""Does it learn the subject, and does it leave the class alone?

Every variant is trained on every shipped subject and scored on poses that training never saw, with
the encoder that needs no download. Writes bench/results/quality.json and with it the tables of
docs/quality.md:

    python -m bench.quality              all of it; hours on a laptop, minutes on a GPU
    python -m bench.quality --tables     only write the tables anew
"""

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench.learning import SUBJECTS, Base, Subject, Variant, run
from bench.machine import describe_machine
from bench.tables import write_tables
from dreambooth.models.defaults import EMOJI
from dreambooth.quality.encoders import load_encoder
from dreambooth.workspace.atomic import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "quality.json"
SEEDS = (0, 1, 2)
NOTEBOOK_RATES = (5e-6, 1e-4, 2e-4, 4e-4)

VARIANTS = (
    *(Variant(f"defaults, seed {seed}", seed=seed) for seed in SEEDS),
    Variant("last checkpoint instead of the best", keep_best=False),
    Variant("λ = 0", prior_weight=0.0, keep_best=False),
    Variant("class images with guidance 5", class_guidance=5.0),
    Variant("text encoder frozen", text_encoder=False),
    Variant("LoRA, rank 8", lora_rank=8, learning_rate=EMOJI.lora_learning_rate),
    Variant("weights in bfloat16", pure_bf16=True),
    *(
        Variant(
            f"the notebook's loop, learning rate {rate:g}",
            notebook=True,
            learning_rate=rate,
            schedule="constant",
            keep_best=False,
        )
        for rate in NOTEBOOK_RATES
    ),
)


def main() -> None:
    """Trains, scores, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--tables", action="store_true", help="only write docs/quality.md anew")
    parser.add_argument("--only", default="", help="variants whose name has this in it")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side (1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file to write")
    parser.add_argument("--steps", type=int, help="optimizer steps, to try the bench out")
    options = parser.parse_args()
    if not options.tables:
        chosen = [variant for variant in VARIANTS if options.only in variant.name]
        if options.steps:
            chosen = [Variant(**asdict(v) | {"steps": options.steps}) for v in chosen]
        rows = _run_all(chosen, options.jobs, options.results.parent / "quality")
        write_json(options.results, {"machine": describe_machine(), "rows": rows})
    if options.results == RESULTS:
        write_tables(read_json(RESULTS) or {})


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description."""


def _run_all(variants: Sequence[Variant], jobs: int, sheets: Path) -> list[dict[str, Any]]:
    shares = [(name, list(variants[k::jobs]), sheets) for k in range(jobs) for name in SUBJECTS]
    shares = [share for share in shares if share[1]]
    if jobs == 1:
        return [row for share in shares for row in _run_share(share)]
    with multiprocessing.get_context("spawn").Pool(len(shares)) as pool:
        return [row for rows in pool.imap(_run_share, shares, chunksize=1) for row in rows]


def _run_share(share: tuple[str, list[Variant], Path]) -> list[dict[str, Any]]:
    name, variants, sheets = share
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    torch.set_num_threads(1 if gpu else len(os.sched_getaffinity(0)))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        encoder = load_encoder(EMOJI.encoder, Path(scratch))
        subject = Subject(name)
        base = Base(subject, device, encoder, Path(scratch))
        for variant in variants:
            figures, pictures = run(variant, subject, base, encoder, device)
            rows.append({"subject": name, "variant": asdict(variant), **asdict(figures)})
            print(f"{name:11s} {variant.name:40s} gap closed {figures.gap_closed:.3f}", flush=True)
            _save_sheet(pictures, sheets / f"{_file_name(variant.name)}-{name}.png")
    return rows


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
