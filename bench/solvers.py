"""What fewer steps of another sampler cost in likeness, and what they save in work.

The built-in model draws the same noise with every sampler. A picture is compared, by the encoder
that needs no download, with the one that a hundred steps give, where solvers agree. Writes
bench/results/solvers.json and with it a table of docs/quality.md:

    python -m bench.solvers           what is not there yet; minutes on two cores
    python -m bench.solvers --fresh   all of it
    python -m bench.solvers --tables  only write the table anew
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from bench.learning import MODEL, SUBJECTS
from bench.machine import describe_machine, in_words
from bench.tables import ROOT, replace_between, table
from dreambooth.models.defaults import EMOJI
from dreambooth.models.schedulers import make_scheduler
from dreambooth.quality.encoders import Encoder, load_encoder
from dreambooth.quality.metrics import diversity
from dreambooth.sampling.devices import prepare_process
from dreambooth.sampling.machines import load_machine
from dreambooth.sampling.settings import (
    BATCH_SIZE,
    PictureRequest,
    SamplingSettings,
    picture_seed,
)
from dreambooth.sampling.studio import Machine, draw
from dreambooth.workspace.atomic import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "solvers.json"
REFERENCE = ("dpmsolver++", 100)
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
PROMPTS = tuple(f"photo of a {noun}" for noun in SUBJECTS.values())
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
    device = prepare_process()
    machine = load_machine(str(MODEL), None, device)
    encoder = load_encoder(EMOJI.encoder, Path())
    results.setdefault("machine", describe_machine())
    rows = results.setdefault("rows", [])
    missing = [
        each for each in SOLVERS if each not in [(row["name"], row["steps"]) for row in rows]
    ]
    exact: Tensor | None = None
    for name, steps in missing[:most]:
        if exact is None:
            exact = _embeddings(machine, encoder, *REFERENCE)
        rows.append(_row(name, steps, _embeddings(machine, encoder, name, steps), exact))
        print(rows[-1], flush=True)
        write_json(RESULTS, results)


def _row(name: str, steps: int, embeddings: Tensor, exact: Tensor) -> Row:
    """One sampler's figures; embeddings are `[prompts, pictures, D]`."""
    likeness = (embeddings * exact).sum(-1).mean().item()
    # How alike two pictures of one prompt are that begin with different noise.
    others = 1.0 - sum(diversity(each) for each in exact) / len(exact)
    varied = sum(diversity(each) for each in embeddings) / len(embeddings)
    return {
        "name": name,
        "steps": steps,
        "likeness": (likeness - others) / (1.0 - others),
        "diversity": varied / (1.0 - others),
        "calls": _calls(name, steps),
    }


def _embeddings(machine: Machine, encoder: Encoder, name: str, steps: int) -> Tensor:
    """`[prompts, pictures, D]` of unit vectors."""
    settings = SamplingSettings(name, steps, EMOJI.guidance)
    requests = [
        PictureRequest(index, 0, prompt, picture_seed(0, prompt, index, 0))
        for prompt in PROMPTS
        for index in range(BATCH_SIZE)
    ]
    pictures = [
        Image.fromarray(picture)
        for part in draw(machine, requests, settings)
        for picture in part.pictures
    ]
    return encoder.embed(pictures).view(len(PROMPTS), BATCH_SIZE, -1)


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
    lines = [["Sampler", "Steps", "The picture of 100 steps", "Diversity", "Work"]]
    for row in rows:
        lines.append(
            [
                f"`{row['name']}`",
                str(row["steps"]),
                f"{row['likeness']:.0%}",
                f"{row['diversity']:.0%}",
                f"{row['calls'] / whole:.0%}",
            ]
        )
    where = in_words(results["machine"])
    return table(lines) + f"\nMeasured by `python -m bench.solvers` on {where}.\n"


if __name__ == "__main__":
    main()
