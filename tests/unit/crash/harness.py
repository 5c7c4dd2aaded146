"""Runs the real command, watches how far it is, and kills at given moments.

A moment is named by what the command itself tells (`--json`), so it is the same on a slow and on a
fast machine: "this stage has reported this many items", and a fraction of a second later.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from dreambooth.pipeline.progress import StageName
from dreambooth.workspace.digest import file_digest, tree_digest
from dreambooth.workspace.layout import Workspace
from tests.jobs import write_manifest
from tests.measuring import ALONE

# The small job takes half a minute; a machine that is busy with other things too, some more.
PATIENCE_SECONDS = 600.0
COMMAND = ALONE + "import sys; from dreambooth.cli.main import main; main()"
# Every process of a run inherits it, whoever its parent is by now.
MARK = "DREAMBOOTH_CRASH_TEST"
STAGES = [stage.value for stage in StageName]
# Two batches of class images, and a choice between checkpoints.
CHANGES: dict[str, Any] = {"classImages.count": 10, "training.keep": "best"}


class Victim(StrEnum):
    """Who is killed."""

    DRIVER = "driver"
    WORKER = "Ray worker"
    TREE = "process tree"


@dataclass(frozen=True)
class Kill:
    """One case: `victim` dies `delay` seconds after `stage` has reported `done` items."""

    victim: Victim
    stage: str
    done: int
    delay: float

    def is_due(self, event: dict[str, Any]) -> bool:
        """At that moment, or at the first sign that it is past."""
        stage = event.get("stage")
        if stage is None or event["kind"] not in ("stageStarted", "stageProgress"):
            return False
        if stage == self.stage:
            return bool(event.get("done", -1) >= self.done)
        return STAGES.index(stage) > STAGES.index(self.stage)


@dataclass
class Played:
    """What became of a job that was killed now and then.

    Attributes:
        struck: Each kill, the stage and item it hit, and the exit code of the command after it.
        finished: The stages that commands finished, in order; skipped ones are left out.
    """

    struck: list[tuple[Kill, str, int]] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    commands: int = 0


class Command:
    """`dreambooth run` on a workspace."""

    def __init__(self, workspace: Path) -> None:
        manifest = write_manifest(workspace, CHANGES)
        self._mark = uuid.uuid4().hex
        # One thread: what is compared bit for bit must not depend on how many there are.
        environment = os.environ | {"DREAMBOOTH_CPU_THREADS": "1", MARK: self._mark}
        environment.pop("RAY_ADDRESS", None)
        words = ["run", str(manifest), "--workspace", str(workspace), "--json"]
        with (workspace / "stderr.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self._deadline = threading.Timer(PATIENCE_SECONDS, self.end)
        self._deadline.start()

    def follow(self) -> Iterator[dict[str, Any]]:
        """Its events as they come, until its output ends."""
        stdout = self._process.stdout
        assert stdout is not None
        for line in stdout:
            if line.startswith("{") and line.endswith("}\n"):
                yield json.loads(line)

    def kill(self, victim: Victim) -> bool:
        """Kills `victim`; False if there is none at the moment."""
        if victim is Victim.TREE:
            self.end()
        elif victim is Victim.DRIVER:
            self._process.send_signal(signal.SIGKILL)
        elif workers := self._busy_workers():
            workers[0].kill()
        else:
            return False
        return True

    def wait(self) -> int:
        """Its exit code."""
        code = self._process.wait()
        self._deadline.cancel()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def end(self) -> None:
        """Kills the command and everything it has started."""
        self._process.kill()
        for process in self._others():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _others(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                mark = process.environ().get(MARK)
            except psutil.Error:
                continue
            if mark == self._mark and process.pid != self._process.pid:
                found.append(process)
        return found

    def _busy_workers(self) -> list[psutil.Process]:
        """Ray's processes that run our code, the one that has computed most first."""
        found = []
        for process in self._others():
            try:
                title = " ".join(process.cmdline())
                if title.startswith("ray::") and not title.startswith("ray::IDLE"):
                    found.append((process.cpu_times().user, process.pid, process))
            except psutil.Error:
                continue
        return [process for _, _, process in sorted(found, reverse=True)]


def play(workspace: Path, kills: Sequence[Kill]) -> Played:
    """Gives the same command until it gets to its end, and kills as `kills` says, in order."""
    played = Played()
    pending = list(kills)
    while True:
        played.commands += 1
        command = Command(workspace)
        hits: list[tuple[Kill, str]] = []
        event: dict[str, Any] = {}
        for event in command.follow():
            if event["kind"] == "stageFinished" and not event["cached"]:
                played.finished.append(event["stage"])
            if pending and pending[0].is_due(event):
                time.sleep(pending[0].delay)
                if command.kill(pending[0].victim):
                    hits.append((pending.pop(0), _place(event)))
        code = command.wait()
        # What a killed driver leaves behind ends by itself, beside the next command.
        played.struck += [(kill, place, code) for kill, place in hits]
        if not hits or code == 0:
            assert code == 0, f"{played}\nlast: {event}\n{(workspace / 'stderr.txt').read_text()}"
            command.end()
            return played


def _place(event: dict[str, Any]) -> str:
    return f"{event['stage']} {event.get('done', '-')}/{event.get('total', '-')}"


@dataclass(frozen=True)
class Outcome:
    """What a job ends with, by content."""

    class_images: dict[str, str]
    model: str
    images: dict[str, str]
    measured: dict[str, str]
    training: dict[str, Any]

    @classmethod
    def of(cls, workspace: Path) -> "Outcome":
        space = Workspace(workspace)
        folder = space.job("rex")
        result = json.loads(folder.result.read_text())
        return cls(
            _digests(space.pictures),
            tree_digest(folder.model),
            _digests(folder.images),
            _digests(folder.evaluation),
            result["training"],
        )


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file_digest(file) for file in sorted(folder.rglob("*.png"))
    }
