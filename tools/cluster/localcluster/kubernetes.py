"""The tool's own access to the API server, through kubectl as the administrator."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from localcluster import binaries
from localcluster.commands import run
from localcluster.errors import ClusterError
from localcluster.layout import ADMIN_KUBECONFIG, STATE

# Nothing of this cluster is written into the home of the user.
_ACCESS = (f"--kubeconfig={ADMIN_KUBECONFIG}", f"--cache-dir={STATE / 'kubectl-cache'}")

APPLY = ("apply", "--server-side", "--force-conflicts", "--field-manager=local-cluster")


def kubectl(*argv: str, stdin: str | None = None, timeout: float = 60) -> str:
    """Run kubectl and return what it prints.

    Raises:
        ClusterError: it failed or ran past the time-out.
    """
    command = [str(binaries.path("kubectl")), *_ACCESS, *argv]
    return run(command, stdin=stdin, timeout=timeout)


def interactive_kubectl(argv: list[str]) -> int:
    """Run kubectl for the user, with their terminal, and return its exit status."""
    command = [str(binaries.path("kubectl")), *_ACCESS, *argv]
    return subprocess.run(command, check=False).returncode


def reachable() -> bool:
    """Tell whether the API server says that it is ready."""
    try:
        return kubectl("get", "--raw", "/readyz", "--request-timeout=5s") == "ok"
    except ClusterError:
        return False


def get(*argv: str) -> Any:
    """Return an object or a list; None if it does not exist."""
    text = kubectl("get", *argv, "--ignore-not-found", "-o", "json")
    return json.loads(text) if text.strip() else None


def apply(manifests: str) -> bool:
    """Apply manifests (server side: KubeRay's are too large for an annotation).

    Returns:
        Whether any object was made or changed.
    """
    before = _fingerprint(manifests)
    kubectl(*APPLY, "-f", "-", stdin=manifests, timeout=120)
    return _fingerprint(manifests) != before


def _fingerprint(manifests: str) -> list[str]:
    """Return what the objects of some manifests say now, without what changes by itself."""
    text = kubectl(
        "get", "--ignore-not-found", "-o", "json", "-f", "-", stdin=manifests, timeout=120
    )
    if not text.strip():
        return []
    found = json.loads(text)
    objects = found["items"] if found["kind"] == "List" else [found]
    return sorted(json.dumps(_settled(item), sort_keys=True) for item in objects)


def _settled(item: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {
        key: value
        for key, value in item["metadata"].items()
        if key not in ("resourceVersion", "managedFields", "generation", "annotations")
    }
    rest = {key: value for key, value in item.items() if key not in ("status", "metadata")}
    return {**rest, "metadata": metadata}


def condition(item: Any, kind: str) -> bool:
    """Tell whether a condition of an object is true."""
    conditions = (item or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)
