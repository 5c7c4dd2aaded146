"""Measures the product on two GPUs of one machine against one of them (NVLink, NCCL).

Training with Ray Train and pictures through the product's own stages, a worker that is killed, and
what adding up gradients takes alone; the plan for more GPUs in docs/performance.md is computed from
that. Where there are four GPUs, `--section four` measures them, too.

    python -m bench.gpu_scaling                       all sections, then the tables
    python -m bench.gpu_scaling --section full        only these (may be given several times)
    python -m bench.gpu_scaling --tables              only write the tables anew
    python -m bench.gpu_scaling --tiny --out FILE     tiny networks on CPUs, to try the bench
"""

from pathlib import Path
from typing import Any

from bench.gpu.scratch import is_prepared
from bench.gpu.sections import Section, run_child, run_chosen, section_parser
from bench.tables import ROOT
from dreambooth.workspace.atomic import read_json

RESULTS = ROOT / "bench" / "results" / "gpu_scaling.json"
BUDGET_SECONDS = 1800.0


def _prepare(tiny: bool) -> dict[str, Any]:
    from bench.gpu.scratch import prepare

    return prepare(tiny)


def _machine(tiny: bool) -> dict[str, Any]:
    from bench.machine import describe_machine

    return describe_machine()


def _link(tiny: bool) -> dict[str, Any]:
    from bench.gpu.link import all_reduce

    return all_reduce(tiny)


def _scaling(name: str) -> Any:
    def measure(tiny: bool) -> Any:
        from bench.gpu import scaling

        return getattr(scaling, name)(tiny)

    return measure


SECTIONS = {
    "prepare": Section(_prepare, 120),
    "machine": Section(_machine, 60),
    "link": Section(_link, 60),
    "one": Section(_scaling("one_full"), 240),
    "full": Section(_scaling("full"), 180),
    "same-batch": Section(_scaling("same_batch"), 150),
    "one-lora": Section(_scaling("one_lora"), 150),
    "lora": Section(_scaling("lora"), 150),
    "four": Section(_scaling("four"), 180),
}


def main() -> None:
    """Measures, writes."""
    parser = section_parser(__doc__, SECTIONS, RESULTS, BUDGET_SECONDS)
    parser.add_argument("--tables", action="store_true", help="only write the tables anew")
    options = parser.parse_args()
    if options.child:
        run_child(SECTIONS, options.child[0], options.tiny, Path(options.child[1]))
        return
    if not options.tables:
        options.section = options.section or [name for name in SECTIONS if name != "four"]
        run_chosen("bench.gpu_scaling", SECTIONS, options, is_prepared)
    if options.out == RESULTS and not options.tiny:
        from bench.gpu.scaling_tables import write_tables

        write_tables(read_json(RESULTS) or {})


if __name__ == "__main__":
    main()
