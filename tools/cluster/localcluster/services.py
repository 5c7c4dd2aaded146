"""Long-running processes: started once, recognised again, restarted when they must be."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localcluster import cgroups
from localcluster.console import say
from localcluster.errors import ClusterError, tail
from localcluster.layout import LOGS, RUN, Machine
from localcluster.machines import inside
from localcluster.waiting import wait_until

_EXITING = 0x4  # PF_EXITING of the kernel's include/linux/sched.h
_PENDING = ("SigPnd:", "ShdPnd:")  # of the first thread, of the process


@dataclass(frozen=True)
class Service:
    """One process of one machine."""

    name: str
    machine: Machine
    argv: tuple[str, ...]
    inputs: tuple[Path, ...] = ()  # files that it reads once, when it starts

    @property
    def label(self) -> str:
        """The process's name among all machines."""
        return f"{self.machine.name}/{self.name}"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return LOGS / self.machine.name / f"{self.name}.log"

    @property
    def _record(self) -> Path:
        return RUN / "services" / self.machine.name / f"{self.name}.json"

    def _digest(self) -> str:
        digest = hashlib.sha256(repr(self.argv).encode())
        for file in self.inputs:
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def pid(self) -> int | None:
        """Return the process's id if it runs, and is not just ending."""
        known = self._known()
        return known if known is not None and not _ending(known) else None

    def _known(self) -> int | None:
        """Return the process's id if there is one, even if it is just ending."""
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        pid: int = record["pid"]
        # An id alone could be another process's by now.
        return pid if _start_time(pid) == record["started"] else None

    def alive(self) -> bool:
        """Tell whether it runs."""
        return self.pid() is not None

    def ensure(self) -> bool:
        """Start it if it does not run or runs with other settings; tell whether it was started."""
        if self.alive():
            if json.loads(self._record.read_text(encoding="utf-8"))["digest"] == self._digest():
                return False
            say(f"{self.label}: settings changed")
            self.stop()
        self._outlive()
        self._start()
        return True

    def _outlive(self) -> None:
        """Wait until a process that is ending has let go of its ports and files."""
        wait_until(f"the end of {self.label}", lambda: self._known() is None, 30, interval=0.02)

    def _start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                inside(self.machine, *self.argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                preexec_fn=lambda: cgroups.join(self.machine.name),
            )
        started = _start_time(process.pid)
        if started is None:
            raise ClusterError(f"{self.label} ended at once\n{tail(self.log)}")
        self._record.parent.mkdir(parents=True, exist_ok=True)
        record = {"pid": process.pid, "started": started, "digest": self._digest()}
        self._record.write_text(json.dumps(record), encoding="utf-8")

    def stop(self, seconds: float = 10) -> None:
        """Ask it to end, and insist after the deadline."""
        for wanted in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + seconds
            while (pid := self._known()) is not None and time.monotonic() < deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, wanted)
                time.sleep(0.1)
        self._record.unlink(missing_ok=True)

    def wait(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for a state that this process brings about."""
        wait_until(what, condition, seconds, log=self.log, alive=self.alive)


def _start_time(pid: int) -> str | None:
    """Return when a process started (ticks since boot), or None if there is none or it is dead."""
    fields = _stat(pid)
    if fields is None:
        return None
    state, threads, started = fields[0], int(fields[17]), fields[19]
    # The first thread of a killed process can be dead before the others are.
    return None if state in "ZX" and threads <= 1 else started


def _ending(pid: int) -> bool:
    """Tell whether a process was killed or is exiting: it may look alive for a while yet."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX" or int(fields[6]) & _EXITING:
        return True
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return True
    pending = [line.split()[1] for line in status.splitlines() if line.startswith(_PENDING)]
    return any(int(mask, 16) >> (signal.SIGKILL - 1) & 1 for mask in pending)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on, or None if there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None


def recorded() -> dict[str, Service]:
    """Return what was started and not stopped on purpose, by label, for reports."""
    found = {}
    for file in sorted((RUN / "services").glob("*/*.json")):
        machine = Machine(file.parent.name, "")
        service = Service(file.stem, machine, ())
        found[service.label] = service
    return found
