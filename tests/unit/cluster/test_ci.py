"""CI's script runs each step once, fails loudly, never hangs and leaves no cluster behind."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from localcluster.layout import REPOSITORY
from localcluster.waiting import wait_until

# Stands in for make and python3: notes what it was asked for, then does as the test says.
PROGRAM = """#!/bin/sh
name=$(basename "$0")
echo "$name $*" >> "{folder}/asked"
test ! -e "{folder}/hang-$name-$1" || sleep 600
test ! -e "{folder}/fail-$name-$1" || exit 7
"""
DOWN = "python3 tools/cluster down"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the script beside programs that stand in for what it calls."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "bin").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_text((REPOSITORY / ".ci" / "run").read_text())
    for program in (script, tmp_path / "bin" / "make", tmp_path / "bin" / "python3"):
        if program != script:
            program.write_text(PROGRAM.format(folder=tmp_path))
        program.chmod(0o755)
    (tmp_path / "asked").touch()
    return tmp_path


def start(folder: Path) -> subprocess.Popen[str]:
    """Start the script with its output in a file, so that what it leaves can't hold a pipe."""
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:/usr/bin:/bin"}
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            [folder / ".ci" / "run"], env=environment, stdout=output, stderr=output, text=True
        )


def run(folder: Path) -> tuple[int, str]:
    """Run the script to its end; return its status and all that it said."""
    status = start(folder).wait(timeout=120)
    return status, (folder / "output").read_text()


def asked(folder: Path) -> list[str]:
    """What was called, in order."""
    return (folder / "asked").read_text().splitlines()


def test_it_checks_tests_and_takes_the_cluster_down_before_and_after(folder: Path) -> None:
    status, output = run(folder)
    assert status == 0, output
    calls = asked(folder)
    assert calls[0] == calls[-1] == DOWN
    assert {"make setup", "make verify", "make demo", "make test", "make e2e"} <= set(calls)
    assert calls.index("make test") < calls.index("make e2e")
    assert "make e2e took" in output


@pytest.mark.parametrize("target", ["verify", "e2e"])
def test_a_failed_step_is_the_last_and_is_named(folder: Path, target: str) -> None:
    (folder / f"fail-make-{target}").touch()
    status, output = run(folder)
    assert status == 7
    assert f"make {target} failed (exit 7)" in output
    assert asked(folder)[-2:] == [f"make {target}", DOWN]


def test_a_cluster_that_stays_is_a_failure(folder: Path) -> None:
    script = folder / ".ci" / "run"
    script.write_text(script.read_text().replace("step 12 python3 tools/cluster down\n", ""))
    (folder / "bin" / "python3").write_text("#!/bin/sh\nexit 7\n")
    status, output = run(folder)
    assert status == 1
    assert "could not be taken down" in output


def test_a_hanging_step_is_ended_when_the_time_for_all_is_over(folder: Path) -> None:
    (folder / "hang-make-setup").touch()
    script = folder / ".ci" / "run"
    script.write_text(script.read_text().replace("TOTAL_SECONDS=$((75 * 60))", "TOTAL_SECONDS=8"))
    status, output = run(folder)
    assert status == 124
    assert "make setup failed (exit 124)" in output
    assert asked(folder)[-1] == DOWN


def test_a_signal_ends_the_step_and_takes_the_cluster_down(folder: Path) -> None:
    (folder / "hang-make-demo").touch()
    process = start(folder)
    wait_until("the demo", lambda: "make demo" in (folder / "asked").read_text(), 60)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert asked(folder)[-2:] == ["make demo", DOWN]
