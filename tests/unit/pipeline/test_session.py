"""Ray beside other work."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import ray

from dreambooth.errors import InfrastructureError
from dreambooth.pipeline import session as module
from dreambooth.pipeline.session import LazyRay
from dreambooth.pipeline.usage import Accounting, GpuMeter
from tests.measuring import unmeasured

# What the thread that starts Ray imports, and the driver's meanwhile, after what both do first.
BESIDE = """
import json, sys
import dreambooth.cli.main
from dreambooth.pipeline import driver
from dreambooth.pipeline.ray_session import ray_session
from dreambooth.pipeline.session import import_ahead
import_ahead()
before = set(sys.modules)
{}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
STARTS_RAY = """
from dreambooth.sampling.factory import warm_up
with ray_session():
    warm_up()
"""
LOADS_MODEL = "from transformers import CLIPTokenizer, CLIPVisionModel; import torch"


class Session:
    """Takes Ray's place: starts when it is let, in some thread."""

    def __init__(self, patch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.may_start = threading.Event()
        self.log: list[str] = []
        self.threads: list[int] = []
        self._error = error
        patch.setattr(module, "ray_session", self._session)
        patch.setattr(ray, "cluster_resources", lambda: {"GPU": 2.0})

    @contextlib.contextmanager
    def _session(self) -> Iterator[None]:
        self.threads.append(threading.get_ident())
        self.may_start.wait()
        if self._error is not None:
            raise self._error
        self.log.append("started")
        yield
        self.threads.append(threading.get_ident())
        self.log.append("stopped")


@pytest.fixture
def meter(tmp_path: Path) -> GpuMeter:
    return GpuMeter(tmp_path / "usage.json", Accounting())


def test_ray_starts_while_the_run_does_something_else_and_stops_with_it(
    monkeypatch: pytest.MonkeyPatch, meter: GpuMeter
) -> None:
    session = Session(monkeypatch)
    with ExitStack() as resources:
        lazy = LazyRay(resources, meter)
        lazy.begin()
        assert session.log == []
        session.may_start.set()
        lazy.ensure()
        lazy.ensure()
        assert session.log == ["started"] and meter.gpus == 2.0
    assert session.log == ["started", "stopped"]
    # The kernel ends Ray's processes with the thread that started them: it has to live as long.
    assert len(set(session.threads)) == 1


def test_a_run_that_needs_no_ray_starts_none(
    monkeypatch: pytest.MonkeyPatch, meter: GpuMeter
) -> None:
    session = Session(monkeypatch)
    with ExitStack() as resources:
        LazyRay(resources, meter)
    assert session.log == [] and session.threads == []


def test_a_ray_that_does_not_start_fails_whoever_needs_it_and_nobody_before(
    monkeypatch: pytest.MonkeyPatch, meter: GpuMeter
) -> None:
    session = Session(monkeypatch, InfrastructureError("no room in /dev/shm"))
    session.may_start.set()
    with ExitStack() as resources:
        lazy = LazyRay(resources, meter)
        lazy.begin()
        with pytest.raises(InfrastructureError, match="no room"):
            lazy.ensure()


def test_what_is_to_be_done_when_ray_is_there_holds_up_nobody_and_may_fail(
    monkeypatch: pytest.MonkeyPatch, meter: GpuMeter
) -> None:
    session, go_on = Session(monkeypatch), threading.Event()
    session.may_start.set()

    def prepare() -> None:
        go_on.wait()
        session.log.append("prepared")
        raise RuntimeError("cannot be prepared")

    with ExitStack() as resources:
        lazy = LazyRay(resources, meter)
        lazy.begin(prepare)
        lazy.ensure()
        assert session.log == ["started"]
        go_on.set()
    assert session.log == ["started", "prepared", "stopped"]


def test_a_run_that_ends_while_ray_starts_does_nothing_more_with_it(
    monkeypatch: pytest.MonkeyPatch, meter: GpuMeter
) -> None:
    session = Session(monkeypatch)
    with ExitStack() as resources:
        LazyRay(resources, meter).begin(lambda: session.log.append("prepared"))
        # By then the run is over and waits for Ray to stop.
        threading.Timer(0.5, session.may_start.set).start()
    assert session.log == ["started", "stopped"]


def _imported_by(work: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", BESIDE.format(work)],
        env=unmeasured(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_two_threads_never_import_what_hangs_together() -> None:
    of_ray, of_driver = _imported_by(STARTS_RAY), _imported_by(LOADS_MODEL)
    assert "torch.nn" in of_driver and "aiohttp" in of_ray
    # Single modules can be imported by two at a time; it is circles of them that cannot.
    roots = [name.split(".")[0] for name in of_ray & of_driver]
    assert sorted(root for root in set(roots) if roots.count(root) > 1) == []
