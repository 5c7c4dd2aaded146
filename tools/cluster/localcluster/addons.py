"""What runs inside the cluster: DNS, storage, fake GPUs and KubeRay."""

import re
from functools import partial
from pathlib import Path
from string import Template

from localcluster import binaries, kubernetes, nodes
from localcluster.errors import ClusterError
from localcluster.layout import (
    DNS_ADDRESS,
    DNS_DOMAIN,
    FAKE_GPUS,
    MANIFESTS,
    NODES,
    SHARED_VOLUMES,
    Machine,
    node,
)
from localcluster.waiting import wait_until

_ON_NODES = {
    "cpu-0": ("coredns", "shared-provisioner", "kuberay-operator"),
    "gpu-0": ("fake-gpus",),
}
_WORKLOADS = (
    ("kube-system", "deployment", "coredns"),
    ("kube-system", "deployment", "shared-provisioner"),
    ("kube-system", "daemonset", "fake-gpus"),
    ("kuberay-system", "deployment", "kuberay-operator"),
)


def ensure_access() -> bool:
    """Grant the cluster's own processes what they need; tell whether anything changed."""
    return kubernetes.apply((MANIFESTS / "access.yaml").read_text(encoding="utf-8"))


def ensure() -> bool:
    """Install or repair all add-ons; tell whether anything changed. Does not wait for them."""
    SHARED_VOLUMES.mkdir(parents=True, exist_ok=True)
    changed = False
    for name, programs in _ON_NODES.items():
        if not nodes.stopped(node(name)):
            for program in programs:
                changed |= nodes.load(node(name), program)
    changed |= _ensure_kuberay_types()
    manifests = [_filled(name) for name in ("dns", "storage", "gpus", "kuberay")]
    manifests.append((_kuberay_files() / "rbac" / "role.yaml").read_text(encoding="utf-8"))
    return changed | kubernetes.apply("\n---\n".join(manifests))


def _kuberay_files() -> Path:
    return binaries.output_folder(binaries.PROGRAMS["kuberay-operator"])


def _ensure_kuberay_types() -> bool:
    """Apply KubeRay's CRDs, unless these very ones are there: they are megabytes."""
    marker = "local-cluster.dreambooth.dev/source"
    source = _kuberay_files().name
    found = kubernetes.kubectl("get", "crd", "-o", "name", "-l", f"{marker}={source}").split()
    files = sorted(binaries.crds().glob("*.yaml"))
    if len(found) == len(files):
        return False
    texts = [file.read_text(encoding="utf-8") for file in files]
    label = f"metadata:\n  labels: {{{marker}: {source}}}"
    texts = [re.sub(r"^metadata:$", label, text, count=1, flags=re.MULTILINE) for text in texts]
    kubernetes.kubectl(*kubernetes.APPLY, "-f", "-", stdin="\n---\n".join(texts), timeout=120)
    return True


def _filled(name: str) -> str:
    values = {
        f"image_{program.replace('-', '_')}": nodes.program_image(program)
        for programs in _ON_NODES.values()
        for program in programs
    }
    values |= {
        "dns_address": DNS_ADDRESS,
        "dns_domain": DNS_DOMAIN,
        "forward": _forward(),
        "volumes": str(SHARED_VOLUMES),
        "gpus": str(FAKE_GPUS),
    }
    text = (MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _forward() -> str:
    """Return the Corefile line for names outside the cluster; none if the host has no resolver."""
    try:
        with open(nodes.host_resolver(), encoding="utf-8") as settings:
            servers = [line.split()[1] for line in settings if line.startswith("nameserver ")]
    except OSError:
        servers = []
    usable = [server for server in servers if not server.startswith("127.")]
    return f"forward . {' '.join(usable)}" if usable else ""


def wait_ready(seconds: float = 240) -> None:
    """Wait until all add-ons on running nodes work.

    Raises:
        ClusterError: the deadline passed; the message shows pods and events.
    """
    down = {machine.name for machine in NODES if nodes.stopped(machine)}
    for namespace, kind, name in _WORKLOADS:
        host = "gpu-0" if name == "fake-gpus" else "cpu-0"
        if host not in down:
            wait_until(
                f"{kind} {namespace}/{name}",
                partial(_available, namespace, kind, name),
                seconds,
                explain=partial(_explain, namespace),
            )
    for machine in NODES:
        if machine.taints and machine.name not in down:
            wait_until(
                f"{FAKE_GPUS} GPUs on {machine.name}",
                partial(_has_gpus, machine),
                seconds,
                explain=partial(_explain, "kube-system"),
            )


def _available(namespace: str, kind: str, name: str) -> bool:
    found = kubernetes.get(kind, name, "-n", namespace)
    status = (found or {}).get("status", {})
    if not found or status.get("observedGeneration") != found["metadata"]["generation"]:
        return False
    if kind == "daemonset":
        wanted = status["desiredNumberScheduled"]
        return wanted > 0 and bool(status.get("numberAvailable", 0) == wanted)
    current = status.get("updatedReplicas", 0) == status.get("replicas", 0)
    return current and kubernetes.condition(found, "Available")


def _has_gpus(machine: Machine) -> bool:
    found = kubernetes.get("node", machine.name)
    return bool(found["status"]["allocatable"].get("nvidia.com/gpu") == str(FAKE_GPUS))


def _explain(namespace: str) -> str:
    try:
        pods = kubernetes.kubectl("get", "pods", "-n", namespace, "-o", "wide")
        events = kubernetes.kubectl("events", "-n", namespace, "--types=Warning")
    except ClusterError as error:
        return str(error)
    return f"{pods}\n{events}"
