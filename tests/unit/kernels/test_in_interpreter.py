"""Runs tests/unit/kernels/interpreted in a process of its own: see conftest.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


# Many tests in one: half a minute alone, minutes where other work takes the processors.
@pytest.mark.timeout(900)
def test_the_kernels_agree_with_torch_in_tritons_interpreter() -> None:
    tests = HERE / "interpreted"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tests)],
        cwd=HERE.parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    # A folder without tests would end with another code; so would one that is not collected.
    assert " passed" in run.stdout
