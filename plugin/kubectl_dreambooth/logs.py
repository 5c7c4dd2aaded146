"""The job's log, over all its tries: `log.txt` in its folder on the volume."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from kubectl_dreambooth.errors import KubectlError
from kubectl_dreambooth.job import JobView, read_job
from kubectl_dreambooth.kubectl import Kubectl
from kubectl_dreambooth.reader import WORKSPACE, Shell, reader

HEAD_CONTAINER = "ray-head"
CHUNK = 64 * 1024
PAUSE_SECONDS = 2.0


def print_log(kubectl: Kubectl, job: JobView, out: BinaryIO) -> None:
    """Writes the log as it is now.

    Raises:
        PluginError: If there is no volume yet, or it cannot be read.
    """
    with _shell(kubectl, job) as shell:
        _copy(shell, ["cat", "--", _path(job)], out)


def follow_log(
    kubectl: Kubectl, job: JobView, out: BinaryIO, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Writes the log and what comes after, until the job is over.

    A try that ends takes its pods along; what its successor writes is followed from there.
    """
    written = 0
    while True:
        head = _head(kubectl, job)
        if head is not None:
            command = ["tail", "-c", f"+{written + 1}", "-F", "--", _path(job)]
            with contextlib.suppress(KubectlError):
                written += _copy(head, command, out)
        job = read_job(kubectl, job.name)
        if job.over or job.phase == "Suspended":
            break
        sleep(PAUSE_SECONDS)
    with reader(kubectl, job) as shell:
        _copy(shell, ["tail", "-c", f"+{written + 1}", "--", _path(job)], out)


@contextlib.contextmanager
def _shell(kubectl: Kubectl, job: JobView) -> Iterator[Shell]:
    """The head pod while there is one, else a reader."""
    head = _head(kubectl, job)
    if head is not None:
        yield head
        return
    with reader(kubectl, job) as shell:
        yield shell


def _head(kubectl: Kubectl, job: JobView) -> Shell | None:
    if job.over:
        return None
    selector = f"dreambooth.dev/job-uid={job.uid},ray.io/node-type=head"
    pods = kubectl.json(
        "get", "pods", "--selector", selector, "--field-selector", "status.phase=Running"
    ).get("items", [])
    names = [
        pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp")
    ]
    return Shell(kubectl, names[-1], HEAD_CONTAINER) if names else None


def _copy(shell: Shell, command: list[str], out: BinaryIO) -> int:
    written = 0
    with shell.stream(*command) as stream:
        read = getattr(stream.output, "read1", stream.output.read)
        while chunk := read(CHUNK):
            out.write(chunk)
            out.flush()
            written += len(chunk)
        if written == 0:
            stream.finish()
    return written


def _path(job: JobView) -> str:
    return f"{WORKSPACE}/{job.folder}/log.txt"
