"""Peak memory of a run."""

import subprocess
import sys

from dreambooth.pipeline.memory import PeakMemory

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
