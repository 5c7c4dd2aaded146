"""DreamBoothJobs of the tests: small ones, on the built-in model, with two workers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.e2e.kube import ROOT, CommandFailed, Kubectl
from tests.e2e.release import Release

EXAMPLE = ROOT / "examples" / "kubernetes" / "robot"
PHOTOS = "robot-photos"
# The GPU node of the local cluster has room for two workers of this pool.
TWO_WORKERS = {"pool": "half", "workers": 2}
# All that belongs to a job, by the label that its children have and its pods.
CHILDREN = (
    "rayjobs.ray.io,rayclusters.ray.io,pods,services,configmaps,serviceaccounts,roles,"
    "rolebindings,networkpolicies,persistentvolumeclaims"
)
Status = Mapping[str, Any]


def example(file: str) -> dict[str, Any]:
    """An object of the smallest example, as users apply it."""
    found: dict[str, Any] = yaml.safe_load((EXAMPLE / file).read_text())
    return found


def a_job(name: str, claim: str, *, steps: int = 12, **changes: Any) -> dict[str, Any]:
    """A job of seconds of computing, whose checkpoints are never far apart."""
    spec: dict[str, Any] = {
        "subject": {"class": "robot", "photos": {"configMap": {"name": PHOTOS}}},
        "classImages": {"count": 4, "steps": 4},
        "training": {"steps": steps, "batchSize": 2, "checkpointEvery": 4, "keep": "last"},
        "generation": {"imagesPerPrompt": 2, "steps": 4},
        "evaluation": {"imagesPerPrompt": 2},
        "cluster": dict(TWO_WORKERS),
        "workspace": {"claimName": claim},
        **changes,
    }
    return {
        "apiVersion": "dreambooth.dev/v1alpha1",
        "kind": "DreamBoothJob",
        "metadata": {"name": name},
        "spec": spec,
    }


@dataclass(frozen=True)
class JobUnderTest:
    """A job in the cluster, and what a test waits for."""

    name: str
    kubectl: Kubectl
    release: Release

    @property
    def status(self) -> dict[str, Any]:
        """The status, empty while there is none."""
        found: dict[str, Any] = self.kubectl.get("dreamboothjob", self.name).get("status", {})
        return found

    def until(self, what: str, holds: Callable[[Status], bool], seconds: float) -> dict[str, Any]:
        """Wait until the status is as a test wants it; fail with the whole story.

        A job that is over changes no more, so nothing is waited for then.
        """
        deadline = time.monotonic() + seconds
        while True:
            status = self.status
            if holds(status):
                return status
            if status.get("phase") in ("Succeeded", "Failed"):
                pytest.fail(f"{self.name} is over, and not: {what}\n{self.story()}")
            if time.monotonic() > deadline:
                pytest.fail(f"{self.name} not within {seconds:.0f} s: {what}\n{self.story()}")
            time.sleep(1)

    def succeeds(self, seconds: float) -> dict[str, Any]:
        """Wait for success."""
        return self.until("it succeeds", lambda status: status.get("phase") == "Succeeded", seconds)

    def trains_beyond(self, step: int, seconds: float) -> dict[str, Any]:
        """Wait until training is under way in the try that runs, and beyond a step."""
        return self.until(
            f"training is beyond step {step}",
            lambda status: (
                status.get("phase") == "Running"
                and status.get("stage") == "train"
                and status.get("progress", {}).get("step", 0) > step
            ),
            seconds,
        )

    def condition(self, type_: str) -> dict[str, Any]:
        """One of the conditions."""
        return condition(self.status, type_)

    @property
    def selector(self) -> str:
        """What selects this very job's children and pods."""
        return f"dreambooth.dev/job-uid={self.kubectl.get('dbj', self.name)['metadata']['uid']}"

    def pods(self, kind: str) -> list[dict[str, Any]]:
        """The pods of its Ray cluster that run: `head` or `worker`."""
        labels = f"dreambooth.dev/job={self.name},ray.io/node-type={kind}"
        return [
            pod
            for pod in self.kubectl.list("pods", "-l", labels)
            if pod["status"].get("phase") == "Running"
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def plugin(self, *words: str, seconds: float = 300) -> str:
        """Run `kubectl dreambooth` on it.

        Raises:
            CommandFailed: it failed.
        """
        options = [
            f"--kubeconfig={self.kubectl.kubeconfig}",
            f"--namespace={self.kubectl.namespace}",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "kubectl_dreambooth", words[0], self.name, *words[1:], *options],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={
                **os.environ,
                "KUBECTL": self.kubectl.program,
                "PYTHONPATH": str(ROOT / "plugin"),
            },
        )
        if done.returncode:
            raise CommandFailed(f"kubectl dreambooth {words[0]}: {done.stderr}{done.stdout}")
        return done.stdout

    def story(self) -> str:
        """All that tells why a job is as it is: status, events, logs."""
        parts = {
            "status": lambda: json.dumps(self.status, indent=1),
            "pods and events": self.kubectl.story,
            "the operator's log": self.release.log,
            "the job's log": lambda: "\n".join(self.plugin("logs").splitlines()[-60:]),
            "the driver's log": self._driver_log,
        }
        return "\n".join(f"--- {title}\n{_try(tell)}" for title, tell in parts.items())

    def _driver_log(self) -> str:
        script = "tail -n 60 /tmp/ray/session_latest/logs/job-driver-*.log"
        head = self.pods("head")[0]["metadata"]["name"]
        return self.kubectl("exec", head, "--", "sh", "-c", script)


def condition(status: Status, type_: str) -> dict[str, Any]:
    """One of a status's conditions, empty while there is none."""
    found = [entry for entry in status.get("conditions", []) if entry["type"] == type_]
    return dict(found[0]) if found else {}


def stage(status: Status, name: str) -> dict[str, Any]:
    """One of a status's stages."""
    found = [entry for entry in status.get("stages", []) if entry["name"] == name]
    return dict(found[0]) if found else {}


def _try(tell: Callable[[], str]) -> str:
    try:
        return tell()
    except (CommandFailed, IndexError, subprocess.TimeoutExpired) as error:
        return f"({type(error).__name__}: {error})"
