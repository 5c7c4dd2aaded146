"""Those who make jobs: their namespace, their photos, the volume that their jobs share."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.dreambooth import JobUnderTest
from tests.e2e.kube import Kubectl, a_pod
from tests.e2e.release import Release

# Generous: machines that run tests are busy, and each wait ends with what it waits for.
SOON, LONG = 120, 1200


@dataclass(frozen=True)
class Team:
    """A namespace with the photos of the example and a claim."""

    kubectl: Kubectl
    release: Release
    claim: str = "team"

    def submit(self, manifest: dict[str, Any]) -> JobUnderTest:
        """Make a job."""
        self.kubectl.apply(manifest)
        return JobUnderTest(manifest["metadata"]["name"], self.kubectl, self.release)

    def on_volume(self, script: str) -> str:
        """What a shell in the folder of the volume prints."""
        name = f"look-{uuid.uuid4().hex[:6]}"
        self.kubectl.apply(a_pod(name, "sh", "-c", f"cd /shared; {script}", claim=self.claim))
        self.kubectl.wait("--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", seconds=SOON)
        said = self.kubectl("logs", name)
        self.kubectl("delete", "pod", name)
        return said


def machines(job: JobUnderTest) -> list[dict[str, Any]]:
    """What of a job's Ray clusters is there yet."""
    return job.kubectl.list("rayclusters,pods", "-l", job.selector)


def kill_training(job: JobUnderTest) -> None:
    """Kill, with SIGKILL, the process that trains in one of the worker pods."""
    script = (
        "for folder in /proc/[0-9]*; do "
        "if tr '\\0' ' ' < $folder/cmdline | grep -q '^ray::.*TrainWorker'; then "
        "kill -KILL ${folder#/proc/} && echo killed; fi; done 2>/dev/null"
    )
    for pod in job.pods("worker"):
        name = pod["metadata"]["name"]
        if "killed" in job.kubectl("exec", name, "--", "sh", "-c", script):
            return
    pytest.fail(f"no worker trains\n{job.story()}")


def assert_pictures(folder: Path, least: int) -> None:
    """The pictures, the contact sheet and the report are here, and can be opened."""
    files = [file for file in folder.rglob("*.png") if file.name != "contact-sheet.png"]
    assert len(files) >= least, files
    for file in (*files, next(folder.rglob("contact-sheet.png"))):
        with Image.open(file) as picture:
            picture.verify()
    assert "<html" in next(folder.rglob("report.html")).read_text().lower()
