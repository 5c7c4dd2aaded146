"""Measures the product on one GPU against the notebook, diffusers' script and the physical limit.

Everything works on a model with the architecture of CompVis/stable-diffusion-v1-4 and random
weights, made once in DREAMBOOTH_BENCH_SCRATCH (/tmp/dreambooth-bench). Every section runs in
processes of its own; a section that is not run keeps the figures it has.

    python -m bench.gpu                       all sections, then the tables in docs/performance.md
    python -m bench.gpu --section job         only this (may be given several times; joined by +
                                              sections share a process, which is started once)
    python -m bench.gpu --tables              only write the tables anew
    python -m bench.gpu --tiny --out FILE     with tiny networks, to try the bench; no tables
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.gpu.job_tables import add_job, is_whole, write_job_tables
from bench.gpu.scratch import is_prepared
from bench.gpu.sections import Section, run_child, run_chosen, section_parser
from bench.gpu.tables import RESULTS, merged, write_tables
from dreambooth.workspace.atomic import read_json, write_json

BUDGET_SECONDS = 1800.0


def _limit(tiny: bool) -> dict[str, Any]:
    from bench.gpu.architecture import SD14, TINY
    from bench.gpu.ceilings import ceilings, counted_before, picture_flops, step_flops
    from bench.machine import describe_machine

    measured = ceilings(256, 2**20) if tiny else ceilings()
    counted = counted_before(TINY if tiny else SD14)
    rate = max(measured["matmul_bf16"], measured["matmul_fp16"])
    pictures, steps = picture_flops(counted), step_flops(counted, 4)
    found = {
        "machine": describe_machine(),
        "ceilings": measured,
        "flops": counted,
        "picture_s": pictures / rate,
        "step_ms": steps / measured["matmul_bf16"] * 1e3,
        "image_trained_ms": counted["unet_trained"] / measured["matmul_bf16"] * 1e3,
    }
    print(f"limit: {found}", flush=True)
    return found


def _prepare(tiny: bool) -> dict[str, Any]:
    from bench.gpu.scratch import prepare

    return prepare(tiny)


def _baseline(name: str) -> Any:
    def measure(tiny: bool) -> Any:
        from bench.gpu import baselines

        return getattr(baselines, name)(tiny)

    return measure


def _drawing(name: str) -> Any:
    def measure(tiny: bool) -> Any:
        from bench.gpu import ours_drawing

        return getattr(ours_drawing, name)(tiny)

    return measure


def _training(name: str) -> Any:
    def measure(tiny: bool) -> Any:
        from bench.gpu import ours_training

        return getattr(ours_training, name)(tiny)

    return measure


def _family(name: str) -> Any:
    def measure(tiny: bool) -> Any:
        from bench.gpu import other_families

        return getattr(other_families, name)(tiny)

    return measure


def _job(tiny: bool) -> Iterator[dict[str, Any]]:
    from bench.gpu.whole_job import whole_jobs

    return whole_jobs(tiny)


SECTIONS = {
    "prepare": Section(_prepare, 120),
    "limit": Section(_limit, 60),
    "notebook-generation": Section(_baseline("notebook_generation"), 60),
    "notebook-training": Section(_baseline("notebook_training"), 60),
    "peer-generation": Section(_baseline("peer_generation"), 60),
    "peer-training": Section(_baseline("peer_training"), 60),
    "job": Section(_job, 600),
    "stream": Section(_drawing("stream"), 90),
    "drawing": Section(_drawing("batches"), 150),
    "training": Section(_training("batches"), 300),
    "memory": Section(_training("memory_caps"), 150),
    "same-pictures": Section(_drawing("same_pictures"), 60),
    "loss-curves": Section(_training("loss_curves"), 120),
    "updates-kept": Section(_training("updates_kept"), 90),
    "profile-drawing": Section(_drawing("profile"), 90),
    "profile-training": Section(_training("profiles"), 120),
    "sdxl": Section(_family("sdxl"), 150),
    "sd3": Section(_family("sd3"), 150),
}


def main() -> None:
    """Measures, writes."""
    parser = section_parser(__doc__, SECTIONS, RESULTS, BUDGET_SECONDS)
    parser.add_argument("--runs", type=int, help="of the whole job, the first with cold caches (3)")
    parser.add_argument("--tables", action="store_true", help="only write the tables anew")
    parser.add_argument("--merge", type=Path, help="take figures from this file; measure nothing")
    options = parser.parse_args()
    if options.child:
        run_child(SECTIONS, options.child[0], options.tiny, Path(options.child[1]))
        return
    if options.runs is not None:
        os.environ["DREAMBOOTH_BENCH_RUNS"] = str(options.runs)
    ours = options.out == RESULTS and not options.tiny
    if options.merge:
        found = read_json(options.merge) or {}
        write_json(options.out, merged(read_json(options.out) or {}, found))
        if ours and is_whole(list(found)):
            add_job(found)
    elif not options.tables:
        run_chosen("bench.gpu", SECTIONS, options, is_prepared)
        if ours and is_whole(options.section or list(SECTIONS)):
            add_job(read_json(RESULTS) or {})
    if ours:
        write_tables(read_json(RESULTS) or {})
        write_job_tables()


if __name__ == "__main__":
    main()
