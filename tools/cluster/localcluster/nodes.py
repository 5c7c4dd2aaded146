"""A worker node: container runtime, kubelet, service proxy and network policy engine."""

import json
import os
from pathlib import Path

from localcluster import (
    binaries,
    certificates,
    cgroups,
    debian,
    kubernetes,
    ociarchive,
)
from localcluster.commands import run, succeeds
from localcluster.control_plane import kubeconfig_for, program
from localcluster.errors import ClusterError, tail
from localcluster.layout import (
    CACHE,
    DNS_ADDRESS,
    DNS_DOMAIN,
    KUBELET_ROOT,
    NODES,
    POD_NETWORK,
    SERVICE_NETWORK,
    STATE,
    Machine,
)
from localcluster.services import Service

_PAUSE = "pause"
_STOPPED = STATE / "stopped-nodes"


def services(machine: Machine) -> tuple[Service, ...]:
    """Write a node's settings and return its processes in the order they start."""
    return (_containerd(machine), _kubelet(machine), _proxy(machine), _policy(machine))


def ensure(machine: Machine) -> bool:
    """Start what does not run on a node; tell whether anything was started."""
    containerd, kubelet, proxy, policy = services(machine)
    changed = containerd.ensure()
    containerd.wait(f"containerd on {machine.name}", lambda: _runtime_answers(machine), 60)
    changed |= load(machine, _PAUSE)
    changed |= kubelet.ensure() | proxy.ensure()
    kubelet.wait(f"node {machine.name} to register", lambda: _registered(machine), 120)
    changed |= _ensure_pod_network(machine)
    # Only now: it gives up when its node is not there.
    return changed | policy.ensure()


def wait_ready(machine: Machine, *, since: str = "", seconds: float = 120) -> None:
    """Wait until the API server calls the node ready and all its processes stay alive.

    Args:
        machine: the node.
        since: the time (RFC 3339) that the node's word must not be older than.
        seconds: the deadline.
    """
    kubelet = services(machine)[1]
    kubelet.wait(f"node {machine.name} Ready", lambda: ready(machine, since), seconds)
    for service in services(machine):
        if not service.alive():
            raise ClusterError(f"{service.label} ended\n{tail(service.log)}")


def _registered(machine: Machine) -> bool:
    return kubernetes.get("node", machine.name) is not None


def ready(machine: Machine, since: str = "") -> bool:
    """Tell whether the API server calls the node ready, by a word not older than given."""
    found = kubernetes.get("node", machine.name) or {}
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and condition["lastHeartbeatTime"] >= since
        for condition in found.get("status", {}).get("conditions", [])
    )


def _ensure_pod_network(machine: Machine) -> bool:
    if kubernetes.get("node", machine.name)["spec"].get("podCIDR"):
        return False
    spec = {"podCIDR": machine.pod_network, "podCIDRs": [machine.pod_network]}
    kubernetes.kubectl("patch", "node", machine.name, "-p", json.dumps({"spec": spec}))
    return True


def stop(machine: Machine) -> None:
    """Take a node away as a power failure would: no process of it is told."""
    _STOPPED.mkdir(parents=True, exist_ok=True)
    (_STOPPED / machine.name).touch()
    cgroups.kill(machine.name)


def start(machine: Machine) -> None:
    """Bring a stopped node back."""
    (_STOPPED / machine.name).unlink(missing_ok=True)


def stopped(machine: Machine) -> bool:
    """Tell whether a node was stopped on purpose."""
    return (_STOPPED / machine.name).exists()


# --- container runtime -------------------------------------------------------------------


def _ctr(machine: Machine) -> list[str]:
    return ["ctr", "--address", str(machine.containerd_socket), "--namespace", "k8s.io"]


def _runtime_answers(machine: Machine) -> bool:
    return machine.containerd_socket.exists() and succeeds([*_ctr(machine), "version"], timeout=5)


def images(machine: Machine) -> set[str]:
    """Return the names of the images a node has."""
    return set(run([*_ctr(machine), "images", "list", "--quiet"]).split())


def image_digests(machine: Machine) -> dict[str, str]:
    """Return the digest of each image a node has, by name."""
    lines = run([*_ctr(machine), "images", "list"]).splitlines()[1:]
    return {words[0]: words[2] for words in map(str.split, lines)}


def blobs(machine: Machine) -> set[str]:
    """Return the digests of all parts of images that a node has."""
    return set(run([*_ctr(machine), "content", "list", "--quiet"]).split())


def import_command(machine: Machine) -> list[str]:
    """Return the command that imports an OCI archive from its standard input."""
    return [*_ctr(machine), "images", "import", "-"]


def load(machine: Machine, name: str) -> bool:
    """Give a node one of the tool's own one-program images; tell whether it lacked it."""
    image = program_image(name)
    if image in images(machine):
        return False
    archive = CACHE / "images" / f"{image.rpartition('/')[2].replace(':', '-')}.tar"
    if not archive.exists():
        ociarchive.write(archive, image, binaries.path(name))
    import_archive(machine, archive)
    return True


def program_image(name: str) -> str:
    """Return the name of the image that holds one built program."""
    digest = binaries.output_folder(binaries.PROGRAMS[name]).name.rpartition("-")[2]
    return f"localhost/{name}:{digest}"


def import_archive(machine: Machine, archive: Path) -> None:
    """Import an OCI archive into a node.

    Raises:
        ClusterError: the runtime refused it.
    """
    run([*_ctr(machine), "images", "import", archive], timeout=600)


def _containerd(machine: Machine) -> Service:
    config = machine.state / "containerd.toml"
    network = machine.state / "cni" / "10-pods.conflist"
    _write(
        network,
        json.dumps(
            {
                "cniVersion": "1.0.0",
                "name": "pods",
                "plugins": [
                    {
                        # Routed, not bridged: every packet passes the node's packet filter,
                        # so services and policies hold between two pods of one node too.
                        "type": "ptp",
                        "ipam": {
                            "type": "host-local",
                            "ranges": [[{"subnet": machine.pod_network}]],
                            "routes": [{"dst": "0.0.0.0/0"}],
                        },
                    },
                    {"type": "portmap", "capabilities": {"portMappings": True}},
                ],
            },
            indent=1,
        ),
    )
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    _write(
        config,
        f"""version = 2
root = "{machine.state / "containerd"}"
state = "{machine.run / "containerd"}"
[grpc]
  address = "{machine.containerd_socket}"
[{cri}]
  sandbox_image = "{program_image(_PAUSE)}"
  restrict_oom_score_adj = {"false" if _may_lower_oom_score() else "true"}
  netns_mounts_under_state_dir = true
  [{cri}.containerd]
    snapshotter = "overlayfs"
    [{cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [{cri}.containerd.runtimes.runc.options]
        SystemdCgroup = false
  [{cri}.cni]
    bin_dir = "{debian.CNI_PLUGINS}"
    conf_dir = "{network.parent}"
""",
    )
    return Service("containerd", machine, ("containerd", "--config", str(config)), (config,))


def _may_lower_oom_score() -> bool:
    """Tell whether this process has CAP_SYS_RESOURCE (bit 24), which some hosts withhold."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> 24 & 1)


# --- kubelet -----------------------------------------------------------------------------


def _kubelet(machine: Machine) -> Service:
    user = f"system:node:{machine.name}"
    client = certificates.ensure(f"kubelet-{machine.name}", user, groups=["system:nodes"])
    serving = certificates.ensure(
        f"kubelet-{machine.name}-serving",
        user,
        hosts=[f"DNS:{machine.name}", f"IP:{machine.address}"],
    )
    kubeconfig = kubeconfig_for(f"kubelet-{machine.name}", client)
    config = machine.state / "kubelet.json"
    # The nodes share one host's memory: none may promise all of it.
    spared = _total_memory() * (len(NODES) - 1) // len(NODES)
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(certificates.CA)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.cert),
        "tlsPrivateKeyFile": str(serving.key),
        "address": machine.address,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups.kubelet_root(machine.name),
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": DNS_DOMAIN,
        "containerRuntimeEndpoint": f"unix://{machine.containerd_socket}",
        "resolvConf": host_resolver(),
        "registerWithTaints": list(machine.taints),
        "systemReserved": {"memory": str(spared)},
        "nodeLeaseDurationSeconds": 20,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        "oomScoreAdj": -999 if _may_lower_oom_score() else 0,
        "shutdownGracePeriod": "0s",
    }
    _write(config, json.dumps(settings, indent=1))
    labels = ",".join(f"{key}={value}" for key, value in machine.labels.items())
    argv = (
        program("kubelet"),
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={machine.name}",
        f"--node-ip={machine.address}",
        f"--root-dir={KUBELET_ROOT}",
        *([f"--node-labels={labels}"] if labels else []),
    )
    return Service("kubelet", machine, argv, (config, kubeconfig, serving.cert))


def host_resolver() -> str:
    """Return the host's resolver settings, past a stub that only listens on loopback."""
    real = Path("/run/systemd/resolve/resolv.conf")
    return str(real) if real.exists() else "/etc/resolv.conf"


def _total_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# --- services and network policies ---------------------------------------------------------


def _proxy(machine: Machine) -> Service:
    client = certificates.ensure("kube-proxy", "system:kube-proxy")
    kubeconfig = kubeconfig_for("kube-proxy", client)
    config = machine.state / "kube-proxy.json"
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "mode": "iptables",
        "clusterCIDR": POD_NETWORK,
        "conntrack": {"maxPerCore": 0, "min": 0},
        "hostnameOverride": machine.name,
    }
    _write(config, json.dumps(settings, indent=1))
    return Service(
        "kube-proxy", machine, (program("kube-proxy"), f"--config={config}"), (config, kubeconfig)
    )


def _policy(machine: Machine) -> Service:
    """kube-router with everything but its network policy engine turned off."""
    client = certificates.ensure("kube-router", "kube-router")
    kubeconfig = kubeconfig_for("kube-router", client)
    return Service(
        "kube-router",
        machine,
        (
            program("kube-router"),
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--run-loadbalancer=false",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={machine.name}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--health-port=0",
            "--metrics-port=0",
        ),
        (kubeconfig,),
    )


def _write(path: Path, text: str) -> None:
    """Write settings if they differ: kube-proxy ends itself when its file is touched."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
