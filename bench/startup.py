"""What a job takes beside its work: a small one with the built-in model, from command to end.

    python -m bench.startup              three runs, prints the medians
    python -m bench.startup --against COMMIT
                                         in turns with the code of another commit, and the ratios

The job is so small (eight class images of two steps, four training steps, two pictures) that nearly
all of its time is start-up: of Python, Ray, Ray Train, worker processes and their imports, models.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from PIL import Image

from bench.machine import busy_with_others, describe_machine, in_words
from bench.tables import ROOT

SPEC: dict[str, Any] = {
    "subject": {"class": "robot", "token": "sks", "photos": {"path": "photos"}},
    "model": {"builtin": "emoji"},
    "classImages": {"count": 8, "steps": 2},
    "training": {"steps": 4, "batchSize": 2, "checkpointEvery": 4, "keep": "last"},
    "generation": {"prompts": ["a {token} {class}"], "imagesPerPrompt": 2, "steps": 2},
    "evaluation": {"imagesPerPrompt": 2, "encoder": "efficientnet-lite0"},
}
PHOTOS = 3
COMMAND = "from dreambooth.cli.main import main; main()"
Times = dict[str, float]


def main() -> None:
    """Measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="of which times are medians (3)")
    parser.add_argument("--against", metavar="COMMIT", help="compare with this commit's code")
    options = parser.parse_args()
    print(in_words(describe_machine()))
    if (load := busy_with_others()) is not None:
        print(f"Other work is running: {load:g} processes want a core.")
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trees = {"now": ROOT}
        if options.against:
            trees[options.against] = stack.enter_context(checked_out(options.against, scratch))
        found: dict[str, list[Times]] = {name: [] for name in trees}
        for number in range(options.runs):
            for name, tree in trees.items():
                times = run(tree, scratch / f"{number}-{name}")
                found[name].append(times)
                print(f"{name}: {times['all']:.1f} s", flush=True)
    medians = {name: _medians(runs) for name, runs in found.items()}
    print(json.dumps(medians, indent=2))
    if options.against:
        for part, seconds in medians["now"].items():
            before = medians[options.against].get(part)
            if before and seconds:
                print(
                    f"{part}: {before:.1f} s before, {seconds:.1f} s now, {before / seconds:.2f}x"
                )


def run(tree: Path, workspace: Path) -> Times:
    """Seconds of the job's parts with the code in `tree`, by stage, and of `all` of it."""
    manifest = _lay_out(workspace)
    environment = os.environ | {"PYTHONPATH": str(tree / "runtime")}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "run", str(manifest), "--workspace", str(workspace),
         "--json"],
        env=environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    times = {"all": time.monotonic() - started}
    for line in done.stdout.splitlines():
        event = json.loads(line)
        if event["kind"] == "stageFinished":
            times[event["stage"]] = event["seconds"]
        elif event["kind"] == "jobFinished" and "timeline" in event["data"]:
            times["start-up"] = event["data"]["timeline"]["startUpSeconds"]
    return times


@contextlib.contextmanager
def checked_out(commit: str, scratch: Path) -> Iterator[Path]:
    """The code of `commit` in a folder, for the time of the body."""
    tree = scratch / "tree"
    tree.mkdir()
    archive = subprocess.run(
        ["git", "archive", commit, "runtime"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "x"], cwd=tree, input=archive.stdout, check=True)
    yield tree


def _medians(runs: list[Times]) -> Times:
    return {part: round(median(each[part] for each in runs), 2) for part in runs[0]}


def _lay_out(workspace: Path) -> Path:
    (workspace / "photos").mkdir(parents=True)
    for number in range(PHOTOS):
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((128, 128), Image.Resampling.NEAREST)
        picture.save(workspace / "photos" / f"{number}.png")
    manifest = workspace / "job.yaml"
    document = {
        "apiVersion": "dreambooth.dev/v1alpha1",
        "kind": "DreamBoothJob",
        "metadata": {"name": "start-up"},
        "spec": SPEC,
    }
    manifest.write_text(yaml.safe_dump(document))
    return manifest


if __name__ == "__main__":
    main()
