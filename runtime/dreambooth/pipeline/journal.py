"""What a job leaves for people who come later: `progress.json` and `log.txt`."""

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dreambooth.errors import InfrastructureError
from dreambooth.pipeline.progress import Event, EventKind
from dreambooth.workspace.atomic import disk_errors, write_json
from dreambooth.workspace.layout import JobFolder

# Progress within a stage is written at most this often; changes of state always.
WRITE_INTERVAL_SECONDS = 2.0
# The log says how far a stage is after so long without another line.
LOG_INTERVAL_SECONDS = 30.0


class Journal:
    """A listener that keeps the progress record and the log of one job."""

    def __init__(self, folder: JobFolder, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._state: dict[str, Any] = {"state": "Running", "stages": {}}
        self._written, self._logged = 0.0, clock()

    def __call__(self, event: Event) -> None:
        """Notes `event`.

        Raises:
            InfrastructureError: If the disk refuses; not for a failure, which is told elsewhere
                too and must not be replaced by this one.
        """
        self._note(event)
        if event.kind is EventKind.JOB_FAILED:
            with contextlib.suppress(InfrastructureError):
                self._write(event)
        else:
            self._write(event)

    def _write(self, event: Event) -> None:
        in_stage = event.kind is EventKind.STAGE_PROGRESS
        quiet = self._clock() - self._logged >= LOG_INTERVAL_SECONDS
        if not in_stage or event.message or quiet:
            self._log(event)
        if in_stage and self._clock() - self._written < WRITE_INTERVAL_SECONDS:
            return
        self._written = self._clock()
        self._state["updated"] = _now()
        write_json(self._folder.progress, self._state)

    def _note(self, event: Event) -> None:
        if event.stage is not None and event.kind is not EventKind.WARNING:
            stage = self._state["stages"].setdefault(event.stage.value, {})
            stage |= {
                key: value
                for key, value in event.to_json().items()
                if key not in ("kind", "stage", "data")
            }
            stage["state"] = "Done" if event.kind is EventKind.STAGE_FINISHED else "Running"
            self._state["stage"] = event.stage.value
        if event.kind is EventKind.WARNING:
            self._state.setdefault("warnings", []).append(event.message)
        elif event.kind is EventKind.JOB_RESOLVED:
            self._state["resolved"] = event.data
        elif event.kind is EventKind.JOB_FINISHED:
            self._state["state"] = "Succeeded"
            self._state["quality"] = event.data.get("quality")
        elif event.kind is EventKind.JOB_FAILED:
            self._state["state"] = event.data.get("state", "Failed")
            self._state["error"] = {"message": event.message, **event.data}

    def _log(self, event: Event) -> None:
        self._logged = self._clock()
        words = [_now(), event.kind.value]
        if event.stage is not None:
            words.append(event.stage.value)
        if event.cached:
            words.append("(already done)")
        if event.message:
            words.append(event.message.replace("\n", " | "))
        elif event.total is not None:
            words.append(f"{event.done}/{event.total} {event.unit}")
            words += [f"loss {event.loss:.4g}"] if event.loss is not None else []
        with disk_errors(self._folder.log), self._folder.log.open("a", encoding="utf-8") as file:
            file.write(" ".join(words) + "\n")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
