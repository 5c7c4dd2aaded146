"""A small pod that can read a job's volume, and is gone when we are.

It may write nothing, speak to nobody with the cluster's authority, and do nothing but sleep; it
fits restricted Pod Security. Should this program be killed, the pod ends itself after an hour, and
it goes with the job it belongs to.
"""

import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_dreambooth.errors import KubectlError, PluginError
from kubectl_dreambooth.job import JobView
from kubectl_dreambooth.kubectl import Kubectl, Stream

WORKSPACE = "/workspace"
CONTAINER = "reader"
LIFETIME_SECONDS = 3600
START_SECONDS = 180
# The user of the runtime image; shared volumes belong to its group.
USER, GROUP = 1000, 100


@dataclass(frozen=True)
class Shell:
    """A running container that sees the workspace."""

    kubectl: Kubectl
    pod: str
    container: str

    def run(self, *command: str) -> bytes:
        """What a command in it prints."""
        return self.kubectl.run_bytes(*self._exec(), "--", *command, timeout=None)

    def stream(
        self, *command: str, stdin: bytes | None = None
    ) -> contextlib.AbstractContextManager[Stream]:
        """A running command in it."""
        more = ["--stdin"] if stdin is not None else []
        return self.kubectl.stream(*self._exec(), *more, "--", *command, stdin=stdin)

    def _exec(self) -> list[str]:
        return ["exec", self.pod, "--container", self.container]


@contextlib.contextmanager
def reader(kubectl: Kubectl, job: JobView) -> Iterator[Shell]:
    """A reader of the job's volume for the time of the body.

    Raises:
        PluginError: If the job has no volume yet, or the pod does not start.
    """
    claim, image = job.resolved.get("claimName"), job.resolved.get("image")
    if not claim or not image:
        raise PluginError(
            f"job {job.name} has no volume yet ({job.phase})",
            f"Wait for it: kubectl dreambooth status {job.name} --watch",
        )
    name = f"{job.name}-reader-{secrets.token_hex(3)}"
    kubectl.run("create", "--filename", "-", stdin=json.dumps(_pod(job, name, claim, image)))
    try:
        _wait(kubectl, name)
        yield Shell(kubectl, name, CONTAINER)
    finally:
        # Whatever has happened; a pod that is gone already is as good.
        kubectl.run("delete", "pod", name, "--ignore-not-found", "--wait=false", "--now")


def _wait(kubectl: Kubectl, name: str) -> None:
    try:
        kubectl.run(
            "wait", f"pod/{name}", "--for=condition=Ready", f"--timeout={START_SECONDS}s",
            timeout=START_SECONDS + 30.0,
        )  # fmt: skip
    except KubectlError as error:
        raise PluginError(
            f"the pod that reads the volume did not start{_why(kubectl, name)}",
            "Try again; if it comes back, look at the events of the namespace.",
        ) from error


def _why(kubectl: Kubectl, name: str) -> str:
    """What the pod itself says about not starting."""
    with contextlib.suppress(KubectlError, AttributeError, TypeError):
        status = kubectl.json("get", "pod", name)["status"]
        states = [
            c.get("state", {}).get("waiting", {}) for c in status.get("containerStatuses", [])
        ]
        states += status.get("conditions", [])
        told = [state["message"] for state in states if state.get("message")]
        return f": {told[0]}" if told else ""
    return ""


def _pod(job: JobView, name: str, claim: str, image: str) -> dict[str, Any]:
    owner = {
        "apiVersion": job.document.get("apiVersion"),
        "kind": job.document.get("kind"),
        "name": job.name,
        "uid": job.uid,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": job.namespace,
            "labels": {
                "app.kubernetes.io/name": "dreambooth-reader",
                "app.kubernetes.io/managed-by": "kubectl-dreambooth",
            },
            "ownerReferences": [owner],
        },
        "spec": {
            "activeDeadlineSeconds": LIFETIME_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": GROUP,
                "fsGroup": GROUP,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": CONTAINER,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", str(LIFETIME_SECONDS)],
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "64Mi"},
                        "limits": {"cpu": "1", "memory": "256Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                    },
                    "volumeMounts": [
                        {"name": "workspace", "mountPath": WORKSPACE, "readOnly": True}
                    ],
                }
            ],
            "volumes": [
                {
                    "name": "workspace",
                    "persistentVolumeClaim": {"claimName": claim, "readOnly": True},
                }
            ],
        },
    }
