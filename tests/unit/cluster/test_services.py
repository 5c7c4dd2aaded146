"""A process is started once, recognised again, and never mistaken for another."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from localcluster import cgroups, services
from localcluster.errors import ClusterError
from localcluster.layout import CONTROL
from localcluster.services import Service
from localcluster.waiting import wait_until

# They outlive the tool that starts them: that is what they are for.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file, with processes of this machine instead of one in namespaces."""
    monkeypatch.setattr(services, "RUN", tmp_path / "run")
    monkeypatch.setattr(services, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(services, "inside", lambda machine, *argv: [*argv])
    monkeypatch.setattr(cgroups, "join", lambda machine: None)
    file = tmp_path / "settings"
    file.write_text("one")
    return file


@pytest.fixture
def service(settings: Path) -> Iterator[Service]:
    """A service that does nothing until it is told to end."""
    made = Service("sleeper", CONTROL, ("sh", "-c", "echo ready; exec sleep 600"), (settings,))
    yield made
    made.stop()


def running(service: Service) -> int:
    """The id of its process, which has to be there."""
    pid = service.pid()
    assert pid is not None
    os.kill(pid, 0)
    return pid


def end(pid: int) -> None:
    """Kill a child and collect it, as the system's init would."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_what_runs_is_left_alone(service: Service) -> None:
    assert service.ensure()
    pid = running(service)
    assert not service.ensure()
    assert running(service) == pid


def test_what_was_killed_is_started_again(service: Service) -> None:
    service.ensure()
    pid = running(service)
    end(pid)
    assert not service.alive()
    assert service.ensure()
    assert running(service) != pid


def test_a_dead_process_that_nobody_collected_does_not_count_as_running(service: Service) -> None:
    service.ensure()
    pid = running(service)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not service.alive()
    os.waitpid(pid, 0)


# Gives back a quarter of a GiB when it ends, which takes the kernel a while.
HEAVY = "import time; held = bytearray(1 << 28); print('ready', flush=True); time.sleep(600)"

# Its first thread ends, as a killed process's may, while another holds what it holds.
HEADLESS = """
import ctypes, os, threading, time
def hold():
    while open(f"/proc/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    print("ready", flush=True)
    time.sleep(1)
    print("let go", flush=True)
    os._exit(0)
threading.Thread(target=hold).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def python(program: str) -> Service:
    """A service that is a Python program and has said that it is ready."""
    made = Service("program", CONTROL, (sys.executable, "-c", program))
    made.ensure()
    wait_until("its word", lambda: "ready" in made.log.read_text(), 30)
    return made


def test_a_process_that_was_just_killed_does_not_count_as_running(settings: Path) -> None:
    heavy = python(HEAVY)
    pid = running(heavy)
    os.kill(pid, signal.SIGKILL)
    assert not heavy.alive()
    os.waitpid(pid, 0)


def test_the_next_one_starts_when_the_last_has_let_go(settings: Path) -> None:
    headless = python(HEADLESS)
    assert not headless.alive()
    replace(headless, argv=("sh", "-c", "echo next; exec sleep 600")).ensure()
    headless.wait("its word", lambda: "next" in headless.log.read_text(), 30)
    assert headless.log.read_text() == "ready\nlet go\nnext\n"
    headless.stop()


@pytest.mark.parametrize("change", ["settings", "arguments"])
def test_changed_settings_restart_it(service: Service, settings: Path, change: str) -> None:
    service.ensure()
    pid = running(service)
    if change == "settings":
        settings.write_text("two")
    else:
        service = replace(service, argv=("sleep", "601"))
    assert service.ensure()
    assert running(service) != pid


def test_another_process_with_a_remembered_id_is_neither_counted_nor_ended(
    service: Service, tmp_path: Path
) -> None:
    service.ensure()
    pid = running(service)
    (record,) = (tmp_path / "run").rglob("sleeper.json")
    text = record.read_text()
    record.write_text(json.dumps({**json.loads(text), "started": "1"}))
    assert not service.alive()
    service.stop()
    os.kill(pid, 0)
    record.write_text(text)
    assert running(service) == pid


@pytest.mark.parametrize("text", ["", "{", "torn"])
def test_a_torn_record_counts_as_none(service: Service, tmp_path: Path, text: str) -> None:
    service.ensure()
    pid = running(service)
    (record,) = (tmp_path / "run").rglob("sleeper.json")
    record.write_text(text)
    assert not service.alive()
    end(pid)


def test_stop_insists_when_asking_does_not_help(settings: Path) -> None:
    deaf = Service(
        "deaf", CONTROL, ("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done")
    )
    deaf.ensure()
    pid = running(deaf)
    deaf.wait("it to turn deaf", lambda: deaf.log.read_text() == "deaf\n", 30)
    deaf.stop(seconds=0.3)
    assert not deaf.alive()
    os.waitpid(pid, 0)


def test_a_wait_for_a_process_that_ends_shows_its_log(settings: Path) -> None:
    broken = Service("broken", CONTROL, ("sh", "-c", "echo no such flag; exit 1"))
    with pytest.raises(ClusterError, match="no such flag"):
        broken.ensure()
        broken.wait("it to answer", lambda: False, 60)


def test_its_log_keeps_what_an_earlier_run_wrote(service: Service) -> None:
    for words in ("ready\n", "ready\nready\n"):
        service.ensure()
        service.wait("its word", lambda words=words: service.log.read_text() == words, 30)  # type: ignore[misc]
        end(running(service))
    assert service.log.read_text() == "ready\nready\n"


def test_a_report_names_what_was_started(service: Service) -> None:
    service.ensure()
    assert list(services.recorded()) == ["control/sleeper"]
    assert services.recorded()["control/sleeper"].pid() == running(service)
