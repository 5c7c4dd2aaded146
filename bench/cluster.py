"""How long the local cluster takes: to be built, to start, to be found as it should be.

    python -m bench.cluster               measure with binaries and images cached (root; ends a
                                          cluster that runs)
    python -m bench.cluster --cold LOG    take the first start's parts from what it said, for
                                          example { time make cluster; time make images; } 2>LOG

Writes bench/results/cluster.json and with it the table of docs/development.md.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import describe_machine
from bench.tables import ROOT, replace_between, table
from dreambooth.workspace.atomic import write_text

RESULTS = Path(__file__).parent / "results" / "cluster.json"
DOCUMENT = ROOT / "docs" / "development.md"
# What the tool says at the end of a step that it times.
PART = re.compile(r"^cluster: (.+): (\d+) s$", re.MULTILINE)
# What the shell's `time` says after each command, if it was asked.
PROCESSOR = re.compile(r"^(?:user|sys)\t(\d+)m([\d.]+)s$", re.MULTILINE)
TOTAL = re.compile(r"^cluster: (?:up in|images \w+ in) (\d+) s", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One command whose time is of interest."""

    name: str
    argv: tuple[str, ...]


STEPS = (
    Step("`make cluster` with binaries cached", ("up",)),
    Step("`make images` into a new cluster, image built before", ("images",)),
    Step("`make cluster` again", ("up",)),
    Step("`make images` again", ("images",)),
    Step("`node stop gpu-0`", ("node", "stop", "gpu-0")),
    Step("`node start gpu-0`, until it is Ready", ("node", "start", "gpu-0")),
)


def main() -> None:
    """Measures or reads, and writes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cold", type=Path, metavar="LOG", help="output of a first start")
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if arguments.cold:
        results["cold"] = read_cold(arguments.cold.read_text(encoding="utf-8"))
    else:
        results["cached"] = measure()
    results["machine"] = describe_machine()
    RESULTS.parent.mkdir(exist_ok=True)
    write_text(RESULTS, json.dumps(results, indent=1) + "\n")
    replace_between(DOCUMENT, "times", times_table(results))


def read_cold(log: str) -> dict[str, int]:
    """The parts of a first start, and their sum as the tool gives it for each command.

    Raises:
        ValueError: The log is not that of `make cluster images` on a machine without them.
    """
    parts = {name: int(seconds) for name, seconds in PART.findall(log)}
    totals = [int(seconds) for seconds in TOTAL.findall(log)]
    if "building kubernetes" not in parts or len(totals) != 2:
        raise ValueError("not the output of a first `make cluster images`")
    parts["`make cluster images` in all"] = sum(totals)
    if busy := PROCESSOR.findall(log):
        seconds = sum(int(minutes) * 60 + float(rest) for minutes, rest in busy)
        parts["its processor time, all cores together"] = round(seconds)
    return parts


def measure() -> dict[str, float]:
    """Seconds of each step, in order, from a cluster that does not run."""
    run(ROOT, "binaries")
    run(ROOT, "images")
    run(ROOT, "down")
    seconds = {step.name: run(ROOT, *step.argv) for step in STEPS}
    seconds["`make images` after a change of our code"] = measure_change()
    seconds["`make cluster-down`"] = run(ROOT, "down")
    return seconds


def measure_change() -> float:
    """Seconds from a changed line to the image on both nodes, in a copy of the repository."""
    with tempfile.TemporaryDirectory() as folder:
        files = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True
        ).stdout
        archive = ["tar", "--create", "--null", "--files-from=-", "--ignore-failed-read"]
        packed = subprocess.run(archive, cwd=ROOT, input=files, check=True, capture_output=True)
        subprocess.run(["tar", "--extract"], cwd=folder, input=packed.stdout, check=True)
        module = Path(folder, "runtime", "dreambooth", "errors.py")
        module.write_text(f"{module.read_text()}\n# {time.time()}\n", encoding="utf-8")
        return run(Path(folder), "images")


def run(repository: Path, *argv: str) -> float:
    """Run the tool; return the seconds it took, to a tenth."""
    start = time.monotonic()
    subprocess.run([sys.executable, repository / "tools" / "cluster", *argv], check=True)
    return round(time.monotonic() - start, 1)


def times_table(results: dict[str, Any]) -> str:
    """Both tables, with what they were measured on."""
    machine = results["machine"]
    text = ""
    for name, title in (("cold", "First start, nothing cached"), ("cached", "Later")):
        if name in results:
            rows = [[part, f"{seconds:,.0f}"] for part, seconds in results[name].items()]
            text += table([[title, "seconds"], *rows]) + "\n"
    where = f"{machine['processor']}, {machine['cores']} cores"
    return f"{text}Measured by `python -m bench.cluster` on {where}.\n"


if __name__ == "__main__":
    main()
