"""Peak memory of a run."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dreambooth.pipeline.memory import PeakMemory, usable_bytes

MIB = 2**20
CHILD = "import sys; held = bytearray(b'x') * (200 * 2**20); print('ready', flush=True); input()"


def test_what_a_process_of_the_run_holds_counts_and_stays_counted_when_it_is_gone() -> None:
    with PeakMemory() as alone:
        pass
    with (
        subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == "ready\n"
        with PeakMemory() as beside:
            pass
        child.stdin.write("\n")
    assert alone.peak_bytes > 10 * MIB
    assert 150 * MIB < beside.peak_bytes - alone.peak_bytes < 400 * MIB


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "3000000\n"}, 3_000_000),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "4000000\n"}, 4_000_000),
        # Version 1 says so when there is no limit.
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_limit_is_what_may_be_used(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_bytes(tmp_path) == (limit or psutil.virtual_memory().total)
