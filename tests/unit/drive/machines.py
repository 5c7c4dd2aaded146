"""Several Ray nodes on this machine, as pods would be: a head without CPUs, workers with a GPU.

The GPUs are only counted, as on a cluster for tests: torch does not see any. The nodes share the
file system, as pods share the workspace.
"""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tests.measuring import unmeasured

RAY = Path(sys.executable).with_name("ray")
READY = "Ray runtime started."
TOKEN = "0123456789abcdef0123456789abcdef"
STORE_BYTES = 100_000_000


class Machines:
    """A head and workers; `environment` is what KubeRay sets in their pods."""

    def __init__(self) -> None:
        self.environment = {
            **unmeasured(),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_ADDRESS": f"127.0.0.1:{_free_port()}",
        }
        self._nodes: list[subprocess.Popen[str]] = []

    def start(self, folder: Path, offers: Sequence[str]) -> None:
        """A head, and a worker for each of `offers`."""
        head = ["--head", f"--port={self.environment['RAY_ADDRESS'].partition(':')[2]}"]
        head += ["--include-dashboard=false", f"--temp-dir={folder}"]
        self._start([*head, "--num-cpus=0", "--num-gpus=0"])
        for offer in offers:
            address = f"--address={self.environment['RAY_ADDRESS']}"
            resources = f"--resources={json.dumps({offer: 1})}"
            self._start([address, "--num-cpus=1", "--num-gpus=1", resources])

    def processes(self, name: str) -> list[psutil.Process]:
        """Ray's processes that do what `name` says."""
        found = []
        for node in self._nodes:
            for process in psutil.Process(node.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if name in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def stop(self) -> None:
        """Ends all of it at once; nobody waits for Ray to drain."""
        doomed = []
        for node in self._nodes:
            with contextlib.suppress(psutil.Error):
                doomed += psutil.Process(node.pid).children(recursive=True)
            node.kill()
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()
        for node in self._nodes:
            node.communicate()

    def _start(self, options: list[str]) -> None:
        command = [str(RAY), "start", "--block", f"--object-store-memory={STORE_BYTES}"]
        node = subprocess.Popen(
            [*command, *options],
            env={k: v for k, v in self.environment.items() if k != "RAY_ADDRESS"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._nodes.append(node)
        assert node.stdout is not None
        told = []
        for line in node.stdout:
            told.append(line)
            if READY in line:
                return
        raise AssertionError("".join(told))


@contextlib.contextmanager
def machines(folder: Path, offers: Sequence[str]) -> Iterator[Machines]:
    """Machines for the time of the body: a head, and a worker for each of `offers`."""
    made = Machines()
    try:
        made.start(folder, offers)
        yield made
    finally:
        made.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
