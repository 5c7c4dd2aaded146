"""A skip says what is missing, and in CI it is a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = 'import pytest\n\ndef test_something():\n    pytest.skip("there is no toaster")\n'


def run(test: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.skips", "-c", os.devnull, "-rs", str(test)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("ci", "status"), [({}, 0), ({"CI": "true"}, 1)])
def test_a_skip_names_what_is_missing_and_fails_in_ci_alone(
    tmp_path: Path, ci: dict[str, str], status: int
) -> None:
    test = tmp_path / "test_toaster.py"
    test.write_text(SKIPPED)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = run(test, environment | ci)
    assert done.returncode == status, done.stdout
    assert "there is no toaster" in done.stdout
