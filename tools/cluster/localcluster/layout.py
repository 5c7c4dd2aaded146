"""Where everything lies: folders, addresses, the machines of the cluster."""

import os
from dataclasses import dataclass, field
from pathlib import Path

TOOL = Path(__file__).resolve().parent.parent
REPOSITORY = TOOL.parent.parent
MODULES = TOOL / "modules"
MANIFESTS = TOOL / "manifests"


def _base(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value else Path.home() / default


CACHE = _base("XDG_CACHE_HOME", ".cache") / "dreambooth-operator"
STATE = _base("XDG_STATE_HOME", ".local/state") / "dreambooth-operator" / "cluster"
# Sockets and namespaces: short, because a socket's path is limited to 107 bytes, and on
# a file system that a reboot empties, because nothing in it survives one.
RUN = Path("/run/dreambooth-cluster")

LOGS = STATE / "logs"
PKI = STATE / "pki"
SHARED_VOLUMES = STATE / "volumes"
ADMIN_KUBECONFIG = STATE / "admin.kubeconfig"
KUBELET_ROOT = Path("/var/lib/kubelet")

BRIDGE = "dbc0"
HOST_ADDRESS = "10.213.0.1"
MACHINE_NETWORK = "10.213.0.0/24"
POD_NETWORK = "10.214.0.0/16"
SERVICE_NETWORK = "10.215.0.0/16"
# All of the above in one prefix, for the host's one masquerading rule.
CLUSTER_NETWORK = "10.212.0.0/14"
API_SERVICE_ADDRESS = "10.215.0.1"
DNS_ADDRESS = "10.215.0.10"
DNS_DOMAIN = "cluster.local"
API_PORT = 6443

FAKE_GPUS = 2


@dataclass(frozen=True, eq=False)
class Machine:
    """One computer of the cluster: a network and a mount namespace and a control group."""

    name: str
    address: str
    pod_network: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[dict[str, str], ...] = ()

    @property
    def device(self) -> str:
        """The host's end of the machine's network cable."""
        return f"dbc-{self.name}"

    @property
    def run(self) -> Path:
        """Sockets and namespace files."""
        return RUN / self.name

    @property
    def net(self) -> Path:
        """The file that keeps the network namespace."""
        return self.run / "net"

    @property
    def mnt(self) -> Path:
        """The file that keeps the mount namespace."""
        return self.run / "mnt"

    @property
    def state(self) -> Path:
        """What the machine would keep on its disk."""
        return STATE / "machines" / self.name

    @property
    def containerd_socket(self) -> Path:
        """The container runtime's socket."""
        return self.run / "containerd.sock"


CONTROL = Machine("control", "10.213.0.2")
NODES = (
    Machine("cpu-0", "10.213.0.10", "10.214.0.0/24"),
    Machine(
        "gpu-0",
        "10.213.0.11",
        "10.214.1.0/24",
        labels={"nvidia.com/gpu.present": "true", "nvidia.com/gpu.product": "Fake-GPU"},
        taints=({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"},),
    ),
)
MACHINES = (CONTROL, *NODES)


def node(name: str) -> Machine:
    """Find a node by name.

    Raises:
        KeyError: there is none.
    """
    return {machine.name: machine for machine in NODES}[name]
