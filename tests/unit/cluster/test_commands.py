"""Programs that fail are never taken for programs that work."""

import sys
from pathlib import Path

import pytest

from localcluster import debian
from localcluster.commands import run, run_logged, succeeds
from localcluster.errors import ClusterError


def test_its_output_is_returned() -> None:
    assert run([sys.executable, "-c", "print(input())"], stdin="hello") == "hello\n"


def test_a_failure_carries_what_the_program_said() -> None:
    with pytest.raises(ClusterError, match=r"failed with 3:\nout of paper"):
        run(["sh", "-c", "echo out of paper >&2; exit 3"])
    assert not succeeds(["false"])
    assert succeeds(["true"])


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no-such-program is not installed"):
        run(["no-such-program"])
    with pytest.raises(ClusterError, match="no-such-program is not installed"):
        run_logged(["no-such-program"], tmp_path / "log")


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="did not end within"):
        run(["sleep", "60"], timeout=0.1)
    with pytest.raises(ClusterError, match=r"did not end within(?s:.*)still here"):
        run_logged(["sh", "-c", "echo still here; exec sleep 60"], tmp_path / "log", timeout=1)


def test_a_logged_program_gets_no_input_and_its_failure_ends_with_the_log(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "build.log"
    with pytest.raises(ClusterError, match=r"build\.log(?s:.*)end of input"):
        run_logged(["sh", "-c", "read line || { echo end of input; exit 1; }"], log)
    assert log.read_text() == "end of input\n"


def test_missing_packages_are_found_by_their_programs(tmp_path: Path) -> None:
    wanted = {"sh": "dash", "no-such-program": "some-package", str(tmp_path / "x"): "some-package"}
    assert debian.missing(wanted) == ["some-package"]
    assert not debian.ensure({"sh": "dash"})


def test_without_root_the_command_to_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match=r"sudo apt-get install .* some-package"):
        debian.ensure({"no-such-program": "some-package"})
