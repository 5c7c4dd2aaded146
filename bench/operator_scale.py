"""How the operator bears many jobs: time to a RayJob, processor time and memory.

    python -m bench.operator_scale           1, 100 and 1,000 jobs, about ten minutes on two cores
    python -m bench.operator_scale --table   only write the table anew

A real API server and etcd with nothing else in it, the operator as a process of its own with the
rights that the chart gives it, and a stand-in for KubeRay and drivers that takes every job through
its five stages as soon as its RayJob is there. Writes bench/results/operator_scale.json and with it
the table of docs/performance.md.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from bench.kuberay_stand_in import StandIn
from bench.machine import busy_with_others, describe_machine
from bench.tables import ROOT, replace_between, table
from dreambooth.workspace.atomic import read_json, write_json
from localcluster import binaries
from tests.contract import chart, control_plane
from tests.contract.control_plane import ControlPlane

RESULTS = Path(__file__).parent / "results" / "operator_scale.json"
DOCUMENT = ROOT / "docs" / "performance.md"
SIZES = (1, 100, 1000)
# An operator at rest takes less than this share of a core for so long.
SETTLE_SECONDS, IDLE_SHARE, LONGEST_SETTLING = 10.0, 0.02, 600.0
START_SECONDS = 60.0


def main() -> None:
    """Measures, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="only write the table anew")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of jobs")
    options = parser.parse_args()
    results: dict[str, Any] = read_json(RESULTS) or {}
    if not options.table:
        load = busy_with_others()
        results = {
            "machine": describe_machine(),
            "load": load,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "sizes": [measure(size) for size in options.sizes],
        }
        write_json(RESULTS, results)
    replace_between(DOCUMENT, "operator", scale_table(results))


def measure(jobs: int) -> dict[str, Any]:
    """Take that many jobs through their lives at once, on an API server of their own."""
    with (
        tempfile.TemporaryDirectory() as name,
        control_plane.running(Path(name)) as plane,
    ):
        plane.define(ROOT / "crds" / "dreamboothjobs.yaml")
        for kind in ("rayjobs", "rayclusters"):
            plane.define(binaries.crds() / f"ray.io_{kind}.yaml")
        plane.make_namespace("default")
        token = chart.grant(plane)
        with operator(plane, token, Path(name)) as process:
            before = cpu_seconds(process)
            waits = asyncio.run(StandIn(plane, jobs).live())
            used = cpu_seconds(process) - before
            settle(process)
            lived = memory(process)
        with operator(plane, token, Path(name)) as process:
            settle(process)
            started = memory(process)
    return {
        "jobs": jobs,
        "secondsToRayJob": {
            "p50": round(statistics.median(waits), 3),
            "p99": round(quantile(waits, 0.99), 3),
            "max": round(max(waits), 3),
        },
        "cpuSecondsPerJob": round(used / jobs, 3),
        "settled": {
            "mebibytes": lived,
            "mebibytesAfterRestart": started,
        },
    }


@contextmanager
def operator(plane: ControlPlane, token: str, folder: Path) -> Iterator[psutil.Process]:
    """The operator, running and ready, with the chart's rights."""
    (port,) = control_plane.free_ports(1)
    settings = {
        "runtime": {"image": "registry.example/dreambooth-runtime:bench"},
        "pools": {"gpus": {"cpu": 4, "memory": "16Gi"}},
        "workspace": {"claimName": "team"},
        "port": port,
        "logLevel": "warning",
    }
    config, access = folder / "config.yaml", folder / "kubeconfig"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    access.touch(mode=0o600)
    access.write_text(json.dumps(plane.kubeconfig(token)), encoding="utf-8")
    command = [sys.executable, "-m", "dreambooth_operator", "--config", str(config)]
    with (folder / "operator.log").open("ab") as log:
        started = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=os.environ | {"KUBECONFIG": str(access), "PYTHONPATH": str(ROOT / "operator")},
        )
    try:
        wait_until_ready(started, port, folder / "operator.log")
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait()


def wait_until_ready(started: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until the operator's probe answers.

    Raises:
        RuntimeError: If it ends or does not answer in time; with the end of its log.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and started.poll() is None:
        with suppress(requests.ConnectionError):
            if requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).ok:
                return
        time.sleep(0.1)
    raise RuntimeError(f"no operator: {log.read_text(encoding='utf-8')[-2000:]}")


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def settle(process: psutil.Process) -> None:
    """Let time pass until the operator has nothing left to look at."""
    deadline = time.monotonic() + LONGEST_SETTLING
    while time.monotonic() < deadline:
        before = cpu_seconds(process)
        time.sleep(SETTLE_SECONDS)
        if cpu_seconds(process) - before < IDLE_SHARE * SETTLE_SECONDS:
            return
    raise RuntimeError("the operator does not come to rest")


def memory(process: psutil.Process) -> float:
    """Resident memory in MiB."""
    return round(process.memory_info().rss / 2**20, 1)


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies; the largest of few."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def scale_table(results: dict[str, Any]) -> str:
    """The table, with what it was measured on."""
    lines = [
        [
            "Jobs at once",
            "To the RayJob, p50",
            "p99",
            "CPU seconds a job",
            "Memory, all settled",
            "after a restart",
        ]
    ]
    for row in results["sizes"]:
        waits, settled = row["secondsToRayJob"], row["settled"]
        lines.append(
            [
                f"{row['jobs']:,}",
                f"{waits['p50']:.2f} s",
                f"{waits['p99']:.2f} s",
                f"{row['cpuSecondsPerJob']:.2f}",
                f"{settled['mebibytes']:.0f} MiB",
                f"{settled['mebibytesAfterRestart']:.0f} MiB",
            ]
        )
    machine, load = results["machine"], results["load"]
    busy = f"; other work was running ({load:g} processes wanted a core before)" if load else ""
    return (
        table(lines) + f"\nMeasured by `make bench-operator` on {machine['processor']}, "
        f"{machine['cores']} cores, which API server, etcd, operator and the stand-in for KubeRay "
        f"share{busy}.\n"
    )


if __name__ == "__main__":
    main()
