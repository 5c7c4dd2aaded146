"""What fewer steps of another sampler cost in quality, and what they save in work.

A shipped subject is learned once with the defaults, and every sampler draws the same noise with the
tuned model: the subject, scored on held-out poses, and its class. Writes bench/results/solvers.json
and with it a table of docs/quality.md:

    python -m bench.solvers           what is not there yet; minutes on two cores
    python -m bench.solvers --fresh   all of it
    python -m bench.solvers --tables  only write the table anew
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.learning import Base, Subject, Variant, score_pictures, train
from bench.machine import describe_machine, in_words
from bench.tables import ROOT, replace_between, table
from dreambooth.models.defaults import EMOJI
from dreambooth.models.schedulers import make_scheduler
from dreambooth.quality.encoders import load_encoder
from dreambooth.sampling.devices import prepare_process
from dreambooth.workspace.atomic import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "solvers.json"
SUBJECT = "robot"
SOLVERS = (
    ("pndm", 50),
    ("ddim", 50),
    ("ddim", 25),
    ("euler", 25),
    ("dpmsolver++", 25),
    ("dpmsolver++", 20),
    ("dpmsolver++", 15),
    ("dpmsolver++", 10),
    ("unipc", 20),
    ("unipc", 10),
)
NOTEBOOK = SOLVERS[0]
Row = dict[str, Any]


def main() -> None:
    """Measures, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", action="store_true", help="only write the table anew")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--most", type=int, default=len(SOLVERS), help="rows to measure now (all)")
    options = parser.parse_args()
    results = {} if options.fresh else read_json(RESULTS) or {}
    if not options.tables:
        _measure_all(results, options.most)
    if results:
        replace_between(ROOT / "docs" / "quality.md", "solvers", solvers_table(results))


def _measure_all(results: Row, most: int) -> None:
    """Adds to `results` the rows it lacks, and writes it after each."""
    rows = results.setdefault("rows", [])
    done = {(row["name"], row["steps"]) for row in rows}
    missing = [each for each in SOLVERS if each not in done][:most]
    if not missing:
        return
    results.setdefault("machine", describe_machine())
    device, encoder = prepare_process(), load_encoder(EMOJI.encoder, Path())
    with tempfile.TemporaryDirectory() as scratch:
        subject = Subject(SUBJECT)
        base = Base(subject, device, encoder, Path(scratch))
        sampler, _ = train(Variant("the defaults"), subject, base, encoder, device)
    for name, steps in missing:
        settings = replace(base.sampling, scheduler=name, steps=steps)
        scores, _ = score_pictures(sampler, subject, base, encoder, settings)
        rows.append(
            {
                "name": name,
                "steps": steps,
                "gap_closed": scores.gap_closed,
                "diversity": scores.diversity_kept,
                "calls": _calls(name, steps),
            }
        )
        print(rows[-1], flush=True)
        write_json(RESULTS, results)


def _calls(name: str, steps: int) -> int:
    """How often a sampler calls the denoiser."""
    scheduler = make_scheduler(name, {"_class_name": "DDPMScheduler"})
    scheduler.set_timesteps(steps)
    return len(scheduler.timesteps)


def solvers_table(results: Row) -> str:
    """Every sampler, most steps first, with its work against the notebook's."""
    rows: Sequence[Row] = results["rows"]
    order = {each: place for place, each in enumerate(SOLVERS)}
    rows = sorted(rows, key=lambda row: order.get((row["name"], row["steps"]), len(order)))
    whole = _calls(*NOTEBOOK)
    lines = [["Sampler", "Steps", "Gap closed", "Diversity", "Work"]]
    for row in rows:
        lines.append(
            [
                f"`{row['name']}`",
                str(row["steps"]),
                f"{row['gap_closed']:.0%}",
                f"{row['diversity']:.0%}",
                f"{row['calls'] / whole:.0%}",
            ]
        )
    where = in_words(results["machine"])
    return table(lines) + f"\nMeasured by `python -m bench.solvers` on {where}.\n"


if __name__ == "__main__":
    main()
