"""A machine's cable is deleted by us or by the kernel, whoever comes first."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from localcluster import machines
from localcluster.errors import ClusterError
from localcluster.layout import NODES

CABLED = NODES[0]
Run = Callable[[Sequence[str | Path]], str]


@pytest.fixture
def cable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel shows of the cable of a machine that has nothing else."""
    monkeypatch.setattr(machines, "_DEVICES", tmp_path)
    monkeypatch.setattr(machines, "_is_mount", lambda path: False)
    shown = tmp_path / CABLED.device
    shown.mkdir()
    return shown


def replace_run(monkeypatch: pytest.MonkeyPatch, run: Run) -> list[list[str]]:
    """Let `run` take the place of running programs; returns what it was given."""
    asked: list[list[str]] = []

    def record(argv: Sequence[str | Path]) -> str:
        asked.append([str(word) for word in argv])
        return run(argv)

    monkeypatch.setattr(machines, "run", record)
    return asked


def test_a_cable_is_deleted(cable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def delete(argv: Sequence[str | Path]) -> str:
        cable.rmdir()
        return ""

    asked = replace_run(monkeypatch, delete)
    machines.release(CABLED)
    machines.release(CABLED)
    assert asked == [["ip", "link", "delete", CABLED.device]]


def test_a_cable_that_the_kernel_deletes_just_now_is_no_failure(
    cable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_late(argv: Sequence[str | Path]) -> str:
        cable.rmdir()
        raise ClusterError("Cannot find device")

    asked = replace_run(monkeypatch, be_late)
    machines.release(CABLED)
    assert len(asked) == 1


def test_a_cable_that_stays_is_a_failure(cable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(argv: Sequence[str | Path]) -> str:
        raise ClusterError("Operation not permitted")

    replace_run(monkeypatch, refuse)
    with pytest.raises(ClusterError, match="not permitted"):
        machines.release(CABLED)
