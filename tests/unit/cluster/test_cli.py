"""The tool answers on standard output, talks on standard error, and fails with a status."""

import subprocess
import sys

import pytest

from localcluster import cli, cluster
from localcluster.errors import ClusterError
from localcluster.layout import ADMIN_KUBECONFIG, REPOSITORY


def test_a_kubeconfig_is_all_that_is_printed() -> None:
    command = [sys.executable, str(REPOSITORY / "tools" / "cluster"), "kubeconfig"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == f"{ADMIN_KUBECONFIG}\n"
    assert done.stderr == ""


def test_an_unknown_program_is_answered_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["binaries", "docker"]) == 1
    said = capsys.readouterr().err
    assert "no such program: docker" in said and "kube-apiserver" in said


def test_a_failed_step_is_said_and_makes_the_command_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> bool:
        raise ClusterError("waited for etcd: its process ended")

    monkeypatch.setattr(cluster, "up", fail)
    assert cli.main(["up"]) == 1
    assert "failed: waited for etcd: its process ended" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "words"), [(True, "up in"), (False, "everything runs, nothing to do")]
)
def test_up_says_whether_it_did_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changed: bool, words: str
) -> None:
    monkeypatch.setattr(cluster, "up", lambda: changed)
    assert cli.main(["up"]) == 0
    assert words in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "up", interrupt)
    assert cli.main(["up"]) == 130
    assert "run it again" in capsys.readouterr().err


def test_a_node_that_does_not_exist_is_refused_with_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["node", "stop", "gpu-7"])
    assert "gpu-0" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["down"], ["node", "stop", "gpu-0"]])
def test_without_root_nothing_is_touched_and_sudo_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(command) == 1
    assert "sudo" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["--help"], ["node", "--help"], ["binaries", "--help"]])
def test_every_command_explains_itself(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage:")
