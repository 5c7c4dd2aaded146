"""The chart, as an administrator installs it, and the rights that its operator then has."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from localcluster import binaries
from tests.contract.control_plane import ControlPlane

CHART = Path(__file__).parents[2] / "charts" / "dreambooth-operator"
NAMESPACE = "dreambooth-system"
_PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts/{name}",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{name}",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/{name}",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings/{name}",
}


def rendered(*settings: str) -> list[dict[str, Any]]:
    """The chart's manifests with default values and these `--set` settings."""
    command = [str(binaries.path("helm")), "template", "dreambooth-operator", str(CHART)]
    command += ["--namespace", NAMESPACE, "--kube-version", "1.34.0"]
    command += [word for setting in settings for word in ("--set", setting)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"helm cannot render {CHART}: {run.stderr}")
    return [document for document in yaml.safe_load_all(run.stdout) if document]


def grant(plane: ControlPlane) -> str:
    """Give the operator the rights of the chart and nothing more; return its token."""
    plane.make_namespace(NAMESPACE)
    account = ""
    for document in rendered():
        if path := _PATHS.get(document["kind"]):
            name = document["metadata"]["name"]
            namespace = document["metadata"].get("namespace", NAMESPACE)
            plane.apply(path.format(namespace=namespace, name=name), document)
        if document["kind"] == "Deployment":
            account = document["spec"]["template"]["spec"]["serviceAccountName"]
    return plane.token_of(NAMESPACE, account)
