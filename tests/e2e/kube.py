"""Access to the cluster under test, and builders for what is put into it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localcluster import binaries

ROOT = Path(__file__).resolve().parents[2]
TOOL = [sys.executable, str(ROOT / "tools" / "cluster")]
_CLUSTER_PROGRAMS = {*binaries.PROGRAMS, "buildah", "containerd", "containerd-shim-runc-v2", "runc"}
IMAGE = os.environ.get("RUNTIME_IMAGE", "localhost/dreambooth-runtime:dev")


def tool(*argv: str, timeout: float = 300, status: int = 0) -> str:
    """Run tools/cluster; fail with all that it said if it does not end as it should."""
    done = subprocess.run(
        [*TOOL, *argv], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == status, f"tools/cluster {' '.join(argv)}:\n{done.stderr}{done.stdout}"
    return done.stdout + done.stderr


def eventually(what: str, holds: Callable[[], bool], seconds: float, interval: float = 1) -> None:
    """Wait for a condition; fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what}")
        time.sleep(interval)


class CommandFailed(Exception):
    """Kubectl said no; its words are the message."""


@dataclass(frozen=True)
class Kubectl:
    """Access to the cluster, as one user, in one namespace."""

    program: str
    kubeconfig: str
    namespace: str = "default"

    def argv(self, *argv: str) -> list[str]:
        """The whole command line."""
        options = [f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}"]
        return [self.program, *options, *argv]

    def __call__(self, *argv: str, stdin: str | None = None, timeout: float = 90) -> str:
        """Run kubectl and return what it prints.

        Raises:
            CommandFailed: it failed.
        """
        done = subprocess.run(
            self.argv(*argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise CommandFailed(done.stderr.strip())
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [*objects]})
        self("apply", "-f", "-", stdin=text)

    def get(self, *argv: str) -> dict[str, Any]:
        """Return an object; an empty one if there is none."""
        text = self("get", *argv, "--ignore-not-found", "-o", "json")
        found: dict[str, Any] = json.loads(text) if text.strip() else {}
        return found

    def list(self, *argv: str) -> list[dict[str, Any]]:
        """Return the objects that a query finds."""
        items: list[dict[str, Any]] = json.loads(self("get", *argv, "-o", "json"))["items"]
        return items

    def wait(self, *argv: str, seconds: int = 120) -> None:
        """Wait with `kubectl wait`; fail with pods and events."""
        try:
            self("wait", f"--timeout={seconds}s", *argv, timeout=seconds + 30)
        except CommandFailed as error:
            pytest.fail(f"{error}\n{self.story()}")

    def story(self) -> str:
        """What happened in the namespace, for a failure's report."""
        return self("get", "pods", "-o", "wide") + self("events")


@dataclass(frozen=True)
class Cluster:
    """The cluster of this test run."""

    kubectl: Kubectl
    local: bool
    before: dict[str, list[str]] | None  # the host as it was before the cluster was started


def host_state() -> dict[str, list[str]]:
    """What a cluster could leave on the host, in a form that can be compared."""

    def lines(*argv: str) -> list[str]:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()

    rules = [*lines("iptables-save"), *lines("ip6tables-save")]
    builtin = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
    return {
        "processes": sorted(process for process in _programs() if process in _CLUSTER_PROGRAMS),
        "control groups": lines("find", "/sys/fs/cgroup", "-name", "dreambooth-cluster"),
        "mounts": sorted(lines("findmnt", "--raw", "--noheadings", "-o", "TARGET,FSTYPE")),
        "links": sorted(line.split(":")[1] for line in lines("ip", "-o", "link")),
        "routes": sorted(lines("ip", "-4", "route")),
        "rules": sorted(
            line.split("[")[0]
            for line in rules
            if line.startswith("-A")
            or (line.startswith(":") and line[1:].split()[0] not in builtin)
        ),
        "namespaces": sorted(
            line for line in lines("lsns", "-n", "-o", "TYPE,NS") if line.split()[0] == "net"
        ),
        "forwarding": lines("cat", "/proc/sys/net/ipv4/ip_forward"),
        "folders": [
            name
            for name in ("/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers")
            if Path(name).exists()
        ],
    }


def _programs() -> Iterator[str]:
    """The name of each running process's program."""
    for executable in Path("/proc").glob("[0-9]*/exe"):
        with suppress(OSError):
            yield executable.readlink().name.removesuffix(" (deleted)")


RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 100,
    "seccompProfile": {"type": "RuntimeDefault"},
}
GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def a_pod(
    name: str,
    *command: str,
    node: str = "cpu-0",
    labels: dict[str, str] | None = None,
    claim: str | None = None,
) -> dict[str, Any]:
    """Return a pod of the runtime image, with a claim mounted at /shared if one is named."""
    volumes = [{"name": "shared", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    mounts = [{"name": "shared", "mountPath": "/shared"}] if claim else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [GPU_TOLERATION],
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "volumes": volumes,
            "containers": [
                {
                    "name": "main",
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": [*command],
                    "securityContext": RESTRICTED,
                    "volumeMounts": mounts,
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                }
            ],
        },
    }


def a_claim(name: str) -> dict[str, Any]:
    """Return a ReadWriteMany claim on the class `shared`."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "shared",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
