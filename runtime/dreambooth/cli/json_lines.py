"""Events for programs: one JSON object a line on the standard output."""

import json
import os
import sys
from typing import TextIO

from dreambooth.pipeline.progress import Event, EventKind


class JsonListener:
    """Writes each event as soon as it happens."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Writes to `stream`, or to what is the standard output when an event comes."""
        self._stream = stream
        self._listening = True
        self.failure_told = False

    def __call__(self, event: Event) -> None:
        """Writes `event`."""
        if event.kind is EventKind.JOB_FAILED:
            self.failure_told = True
        self._write(json.dumps(event.to_json(), ensure_ascii=False, allow_nan=False))

    def _write(self, line: str) -> None:
        if not self._listening:
            return
        try:
            print(line, file=self._stream or sys.stdout, flush=True)
        except BrokenPipeError:
            # Whoever listened has gone; that is no reason to stop the work. What is buffered must
            # not be flushed at exit either.
            self._listening = False
            if self._stream is None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
