"""A job as it changes."""

import codecs
import json
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from kubectl_dreambooth.errors import KubectlError
from kubectl_dreambooth.job import RESOURCE, JobView, read_job
from kubectl_dreambooth.kubectl import Kubectl

CHUNK = 64 * 1024
# API servers end a watch after some minutes; then there is a next one.
PAUSE_SECONDS = 1.0


def watch(
    kubectl: Kubectl, name: str, sleep: Callable[[float], None] = time.sleep
) -> Iterator[JobView]:
    """The job now and after every change, until it is over or deleted.

    Raises:
        KubectlError: If it does not exist, may not be watched, or is deleted.
    """
    job = read_job(kubectl, name)
    while True:
        yield job
        if job.over:
            return
        for job in _changes(kubectl, name):
            yield job
            if job.over:
                return
        sleep(PAUSE_SECONDS)
        job = read_job(kubectl, name)


def _changes(kubectl: Kubectl, name: str) -> Iterator[JobView]:
    """What one watch tells; ends with it, or when the connection does."""
    words = ["get", RESOURCE, name, "--watch", "--output-watch-events", "--output", "json"]
    with kubectl.stream(*words) as stream:
        for event in documents(stream.output):
            if event.get("type") == "DELETED":
                raise KubectlError(f"job {name} was deleted", "", "NotFound")
            found = event.get("object")
            if isinstance(found, dict):
                yield JobView(found)


def documents(output: IO[bytes]) -> Iterator[dict[str, Any]]:
    """JSON objects one after the other, as soon as each is whole."""
    decoder, text = json.JSONDecoder(), ""
    characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
    read = getattr(output, "read1", output.read)
    while chunk := read(CHUNK):
        text += characters.decode(chunk)
        while text := text.lstrip():
            try:
                value, end = decoder.raw_decode(text)
            except ValueError:
                break
            text = text[end:]
            if isinstance(value, dict):
                yield value
