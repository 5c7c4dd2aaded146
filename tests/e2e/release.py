"""The operator, installed with its Helm chart as an administrator does it."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.kube import ROOT, Cluster, CommandFailed, Kubectl, tool

CHART = ROOT / "charts" / "dreambooth-operator"
# Another cluster than the local one has other images and nodes: name a values file for it.
VALUES = Path(os.environ.get("E2E_VALUES") or ROOT / "tests" / "e2e" / "my-cluster.yaml")
NAME, NAMESPACE = "dreambooth", "dreambooth"
DEPLOYMENT = "deployment/dreambooth-dreambooth-operator"


@dataclass(frozen=True)
class Release:
    """The operator of this test run."""

    helm: str
    kubectl: Kubectl

    @classmethod
    def of(cls, cluster: Cluster) -> "Release":
        """The release in a cluster; nothing is installed yet."""
        helm = tool("binaries", "helm").split()[1] if cluster.local else "helm"
        kubectl = cluster.kubectl
        return cls(helm, Kubectl(kubectl.program, kubectl.kubeconfig, NAMESPACE))

    def install(self, *options: str) -> None:
        """Install or change it, and wait until it is ready; it runs under restricted rules."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": NAMESPACE, "labels": labels},
            }
        )
        values = ["--values", str(VALUES), *options]
        try:
            self("upgrade", "--install", NAME, str(CHART), *values, "--wait", "--timeout", "5m")
        except CommandFailed as error:
            raise AssertionError(f"{error}\n{self.kubectl.story()}\n{self.log()}") from error

    def uninstall(self) -> None:
        """Take it away again; the API and all jobs stay."""
        self("uninstall", NAME, "--ignore-not-found", "--wait", "--timeout", "5m")

    def log(self, lines: int = 60) -> str:
        """What the operator logged last."""
        try:
            return self.kubectl("logs", DEPLOYMENT, f"--tail={lines}")
        except CommandFailed as error:
            return f"(no log of the operator: {error})"

    def __call__(self, *argv: str) -> str:
        """Run helm.

        Raises:
            CommandFailed: it failed.
        """
        options = [f"--kubeconfig={self.kubectl.kubeconfig}", f"--namespace={NAMESPACE}"]
        done = subprocess.run(
            [self.helm, *argv, *options], capture_output=True, text=True, timeout=400, check=False
        )
        if done.returncode:
            raise CommandFailed(f"helm {argv[0]}: {done.stderr.strip()}")
        return done.stdout
