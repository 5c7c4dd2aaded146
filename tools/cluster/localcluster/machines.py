"""The cluster's machines: namespaces on this host, joined by a bridge.

Each machine has its own network and its own view of the mounts, so that two kubelets can
both have /var/lib/kubelet, and nothing of theirs shows on the host.
"""

import contextlib
import ipaddress
import shutil
from pathlib import Path

from localcluster import cgroups
from localcluster.commands import run, succeeds
from localcluster.errors import ClusterError
from localcluster.layout import (
    BRIDGE,
    CLUSTER_NETWORK,
    HOST_ADDRESS,
    MACHINE_NETWORK,
    MACHINES,
    NODES,
    RUN,
    STATE,
    Machine,
)

# Folders with one fixed path that each machine must have for itself.
PRIVATE_FOLDERS = (
    Path("/var/lib/kubelet"),
    Path("/var/lib/cni"),
    Path("/var/log/pods"),
    Path("/var/log/containers"),
)
_MADE_FOLDERS = STATE / "made-folders"
_DEVICES = Path("/sys/class/net")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_FORWARDING_BEFORE = STATE / "ip-forward-before"
_COMMENT = ("-m", "comment", "--comment", "dreambooth-cluster")
_HOST_RULES = (
    # The machines reach each other whatever the host's policy is, and the world through it.
    ("filter", ("FORWARD", "-i", BRIDGE, *_COMMENT, "-j", "ACCEPT")),
    ("filter", ("FORWARD", "-o", BRIDGE, *_COMMENT, "-j", "ACCEPT")),
    (
        "nat",
        ("POSTROUTING", "-s", CLUSTER_NETWORK, "!", "-d", CLUSTER_NETWORK)
        + (*_COMMENT, "-j", "MASQUERADE"),
    ),
)
_PREFIX = ipaddress.ip_network(MACHINE_NETWORK).prefixlen


def inside(machine: Machine, *argv: str | Path) -> list[str]:
    """Return a command line that runs in a machine's namespaces."""
    words = ["nsenter", f"--net={machine.net}", f"--mount={machine.mnt}", "--"]
    return [*words, *map(str, argv)]


def _is_mount(path: Path) -> bool:
    """Tell whether something is mounted at a path, be it a folder or a file."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return str(path) in {line.split()[4] for line in lines}


def _has_device(name: str) -> bool:
    return (_DEVICES / name).exists()


def ensure_host() -> bool:
    """Set up the bridge, forwarding and the private folder; tell whether anything changed."""
    changed = _ensure_run_folder()
    if not _has_device(BRIDGE):
        _refuse_taken_network()
        run(["ip", "link", "add", BRIDGE, "type", "bridge"])
        run(["ip", "address", "add", f"{HOST_ADDRESS}/{_PREFIX}", "dev", BRIDGE])
        run(["ip", "link", "set", BRIDGE, "up"])
        changed = True
    if _FORWARDING.read_text().strip() != "1":
        STATE.mkdir(parents=True, exist_ok=True)
        if not _FORWARDING_BEFORE.exists():
            _FORWARDING_BEFORE.write_text("0")
        _FORWARDING.write_text("1")
        changed = True
    for table, rule in _HOST_RULES:
        if not succeeds(["iptables", "-w", "-t", table, "-C", *rule]):
            run(["iptables", "-w", "-t", table, "-I", *rule])
            changed = True
    return changed


def _refuse_taken_network() -> None:
    ours = ipaddress.ip_network(CLUSTER_NETWORK)
    for line in run(["ip", "-4", "route", "show", "table", "all"]).splitlines():
        with contextlib.suppress(ValueError):
            if ipaddress.ip_network(line.split()[0]).subnet_of(ours):  # type: ignore[arg-type]
                raise ClusterError(f"this host already has a route into {ours}: {line}")


def _ensure_run_folder() -> bool:
    """Make the folder for namespace files: they can only be kept on a private mount."""
    RUN.mkdir(parents=True, exist_ok=True)
    if _is_mount(RUN):
        return False
    run(["mount", "-t", "tmpfs", "-o", "mode=0755", "dreambooth-cluster", RUN])
    run(["mount", "--make-private", RUN])
    return True


def intact(machine: Machine) -> bool:
    """Tell whether a machine has its groups, namespaces and cable."""
    return _is_mount(machine.mnt) and _has_device(machine.device) and cgroups.exist(machine.name)


def make(machine: Machine) -> None:
    """Make a machine's groups, namespaces and cable anew."""
    cgroups.ensure(machine.name)
    release(machine)
    machine.run.mkdir(parents=True, exist_ok=True)
    for file in (machine.net, machine.mnt):
        file.touch()
    run(["unshare", f"--net={machine.net}", "true"])
    _connect(machine)
    _make_mounts(machine)


def _connect(machine: Machine) -> None:
    run(
        ["ip", "link", "add", machine.device, "type", "veth"]
        + ["peer", "name", "eth0", "netns", str(machine.net)]
    )
    run(["ip", "link", "set", machine.device, "master", BRIDGE, "up"])
    commands = [
        "link set lo up",
        f"address add {machine.address}/{_PREFIX} dev eth0",
        "link set eth0 up",
        f"route add default via {HOST_ADDRESS}",
    ]
    commands += [
        f"route add {node.pod_network} via {node.address}" for node in NODES if node is not machine
    ]
    run(["nsenter", f"--net={machine.net}", "ip", "-batch", "-"], stdin="\n".join(commands) + "\n")
    run(["nsenter", f"--net={machine.net}", "sysctl", "-qw", "net.ipv4.ip_forward=1"])
    if machine.pod_network:
        run(["ip", "route", "replace", machine.pod_network, "via", machine.address])


def _make_mounts(machine: Machine) -> None:
    run(["unshare", f"--mount={machine.mnt}", "--propagation", "private", "true"])
    # Containers that mount for others need sharing, which stays within this machine.
    run(inside(machine, "mount", "--make-rshared", "/"))
    for folder in PRIVATE_FOLDERS:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            with _MADE_FOLDERS.open("a", encoding="utf-8") as made:
                made.write(f"{folder}\n")
        own = machine.state / folder.relative_to("/")
        own.mkdir(parents=True, exist_ok=True)
        run(inside(machine, "mount", "--bind", own, folder))


def release(machine: Machine) -> None:
    """Drop a machine's namespaces and cable; with its processes gone, its mounts go too."""
    for file in (machine.net, machine.mnt):
        while _is_mount(file):
            run(["umount", "--lazy", file])
    _delete_device(machine.device)


def _delete_device(name: str) -> None:
    """Delete a network device, if it is there.

    The kernel deletes a cable itself some time after its namespace, maybe just now.
    """
    if not _has_device(name):
        return
    try:
        run(["ip", "link", "delete", name])
    except ClusterError:
        if _has_device(name):
            raise


def release_host() -> None:
    """Undo what was done to the host."""
    for machine in MACHINES:
        release(machine)
    _delete_device(BRIDGE)
    if shutil.which("iptables"):
        for table, rule in _HOST_RULES:
            while succeeds(["iptables", "-w", "-t", table, "-C", *rule]):
                run(["iptables", "-w", "-t", table, "-D", *rule])
    if _FORWARDING_BEFORE.exists():
        _FORWARDING.write_text(_FORWARDING_BEFORE.read_text())
    if _MADE_FOLDERS.exists():
        for line in _MADE_FOLDERS.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(OSError):
                Path(line).rmdir()
    while _is_mount(RUN):
        run(["umount", "--lazy", RUN])
    shutil.rmtree(RUN, ignore_errors=True)
