"""Starting Ray, or not being able to."""

import subprocess
import sys
from typing import Any

import pytest
import ray

from dreambooth.errors import InfrastructureError
from dreambooth.pipeline.ray_session import ray_session
from tests.measuring import ALONE

STOPPED = """
import os, signal
from dreambooth.pipeline.ray_session import ray_session

told = []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
with ray_session():
    os.kill(os.getpid(), signal.SIGTERM)
print("told", len(told))
"""


class Recorded:
    """Takes Ray's place."""

    def __init__(self, patch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.options: dict[str, Any] = {}
        self.stopped = 0
        self._error = error
        patch.setattr(ray, "init", self._init)
        patch.setattr(ray, "shutdown", self._shutdown)

    def _init(self, **options: Any) -> None:
        self.options = options
        if self._error:
            raise self._error

    def _shutdown(self) -> None:
        self.stopped += 1


def test_a_ray_that_does_not_start_is_a_failure_of_the_machine_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Recorded(monkeypatch, RuntimeError("no room in /dev/shm"))
    with pytest.raises(InfrastructureError, match="no room in /dev/shm") as raised, ray_session():
        pass
    assert raised.value.reason == "RayUnavailable" and raised.value.remedy


def test_ray_is_stopped_however_the_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Recorded(monkeypatch)
    with pytest.raises(KeyboardInterrupt), ray_session():
        raise KeyboardInterrupt
    assert started.stopped == 1


def test_a_cluster_that_is_named_is_joined_instead_of_starting_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = Recorded(monkeypatch)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with ray_session():
        assert started.options["address"] == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")
    with ray_session():
        assert started.options.get("address") in (None, "10.1.2.3:6379")
        assert "num_cpus" not in started.options


def test_a_program_that_is_told_to_stop_still_hears_it_while_ray_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE + STOPPED],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "told 1"), done.stderr
