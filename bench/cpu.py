"""What the demo's job costs on a CPU, stage by stage, and how fast it is beside plain diffusers.

Writes bench/results/cpu.json and with it the tables of docs/performance.md:

    python -m bench.cpu              all of it, about half an hour on two cores
    python -m bench.cpu --part rates only images and steps a second; the rest stays as it is
    python -m bench.cpu --part job   only the demo's job, with Ray and without
    python -m bench.cpu --tables     only write the tables anew
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bench import job_cost
from bench.machine import busy_with_others, describe_machine, in_words
from bench.tables import ROOT, replace_between, table
from dreambooth.report.words import bytes_in_words, duration, stage_title
from dreambooth.workspace.atomic import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "cpu.json"
DOCUMENT = ROOT / "docs" / "performance.md"
JOB = ROOT / "examples" / "robot.yaml"
OURS = "`dreambooth`"
OTHER_PARTS = {job_cost.START: "start of the command", job_cost.REST: "between stages, end"}


def main() -> None:
    """Measures, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", action="store_true", help="only write the tables anew")
    parser.add_argument("--part", choices=("rates", "job"), help="only this; the other stays")
    parser.add_argument("--rounds", type=int, default=5, help="of which rates are medians (5)")
    parser.add_argument("--runs", type=int, default=3, help="of which a job's costs are (3)")
    options = parser.parse_args()
    results: dict[str, Any] = read_json(RESULTS) or {}
    if not options.tables:
        results |= {"machine": describe_machine()}
        if options.part != "job":
            results["rates"] = {"load": busy_with_others(), **_rates(options.rounds)}
            write_json(RESULTS, results)
        if options.part != "rates":
            results["job"] = {"load": busy_with_others(), **_job(options.runs)}
        write_json(RESULTS, results)
    # As they are in the file, so that the tables never depend on who wrote them.
    write_tables(read_json(RESULTS) or {})


def write_tables(results: dict[str, Any]) -> None:
    """Puts the figures into docs/performance.md."""
    for name, text in performance_tables(results).items():
        replace_between(DOCUMENT, name, text)


def performance_tables(results: dict[str, Any]) -> dict[str, str]:
    """The tables of docs/performance.md by the name of their markers."""
    tables: dict[str, str] = {}
    if not results:
        return tables
    caption = f"\nMeasured by `make bench-cpu` on {in_words(results['machine'])}"
    if rates := results.get("rates"):
        of = f"medians of {rates['rounds']}{_others(rates['load'])}"
        tables["cpu-rates"] = rates_table(rates) + f"{caption}; {of}.\n"
    if job := results.get("job"):
        runs = job["withRay"]["runs"]
        of = f"medians of {runs} runs" if runs > 1 else "one run"
        tables["cpu"] = job_table(job) + f"{caption}; {of}{_others(job['load'])}.\n"
    return tables


def _others(load: float | None) -> str:
    """Times of a busy machine say less: ratios may still hold, for contenders took turns."""
    if load is None:
        return ""
    return f". **Other work was running**: {load:g} processes wanted a core before this began"


def rates_table(rates: dict[str, Any]) -> str:
    """Generation and training, every contender with its ratio to ours."""
    lines = [["", "Rate", "Ours against it"]]
    for title, unit in (("generation", "images/s"), ("training", "steps/s")):
        ours = rates[title][OURS]
        for name, rate in rates[title].items():
            ratio = "" if name == OURS else f"{ours / rate:.2f}×"
            lines.append([f"{title}: {name}", f"{rate:.2f} {unit}", ratio])
    return table(lines)


def job_table(job: dict[str, Any]) -> str:
    """Stage by stage, with Ray and without."""
    with_ray, without = job["withRay"], job["withoutRay"]
    lines = [["Stage", "Time", "Without Ray", "Ray's share", "Memory", "Without Ray"]]
    for part, seconds in with_ray["seconds"].items():
        bare = without["seconds"].get(part, 0.0)
        lines.append(
            [
                OTHER_PARTS.get(part) or stage_title(part).lower(),
                *_times(seconds, bare),
                *(_memory(each["peakBytes"].get(part, 0)) for each in (with_ray, without)),
            ]
        )
    peaks = [_memory(max(each["peakBytes"].values())) for each in (with_ray, without)]
    total = _times(with_ray["totalSeconds"], without["totalSeconds"])
    lines.append(["**all**", *total, *peaks])
    return table(lines)


def _times(seconds: float, bare: float) -> list[str]:
    share = max(0.0, seconds - bare)
    return [duration(seconds), duration(bare), f"{duration(share)}, {share / seconds:.0%}"]


def _memory(peak: int) -> str:
    return bytes_in_words(peak) if peak else "–"


def _rates(rounds: int) -> dict[str, Any]:
    from bench.throughput import generation_rates, training_rates

    with tempfile.TemporaryDirectory() as scratch:
        return {
            "rounds": rounds,
            "generation": generation_rates(OURS, rounds),
            "training": training_rates(OURS, rounds, Path(scratch)),
        }


def _job(runs: int) -> dict[str, Any]:
    costs: dict[str, list[job_cost.Cost]] = {"withRay": [], "withoutRay": []}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(runs):
            for way, measure in (
                ("withRay", job_cost.with_ray),
                ("withoutRay", job_cost.without_ray),
            ):
                costs[way].append(measure(JOB, Path(scratch) / f"{way}-{number}"))
                print(f"{way}: {duration(costs[way][-1].total_seconds)}", flush=True)
        job_cost.medians([cost for each in costs.values() for cost in each])
    return {way: job_cost.medians(each) for way, each in costs.items()}


if __name__ == "__main__":
    main()
