"""The cluster as a whole: up, down and its state. Each step leaves alone what is already right."""

import os
import shutil
import time
from pathlib import Path

from localcluster import (
    addons,
    binaries,
    cgroups,
    control_plane,
    debian,
    images,
    kubernetes,
    machines,
    nodes,
    services,
)
from localcluster.console import say, timed
from localcluster.errors import ClusterError
from localcluster.layout import ADMIN_KUBECONFIG, LOGS, MACHINES, NODES, RUN, STATE, Machine
from localcluster.locking import CLUSTER, exclusive


def up() -> bool:
    """Bring everything that should run to run; tell whether anything had to be done.

    Raises:
        ClusterError: a step failed; running it again goes on where it stopped.
    """
    # First: it is what somebody without root, too, can see is missing.
    changed = debian.ensure(debian.FOR_NODES)
    _require_root()
    with exclusive(CLUSTER):
        changed |= binaries.ensure()
        if not STATE.is_dir():
            say("starting a cluster from nothing")
        STATE.mkdir(parents=True, exist_ok=True, mode=0o700)
        machines_changed = machines.ensure_host()
        for machine in MACHINES:
            machines_changed |= _ensure_machine(machine)
        changed |= machines_changed
        changed |= _step("control plane", control_plane.ensure())
        changed |= _step("access rights", addons.ensure_access())
        running = [machine for machine in NODES if not nodes.stopped(machine)]
        for machine in running:
            changed |= _step(f"node {machine.name}", nodes.ensure(machine))
        changed |= _step("add-ons", addons.ensure())
        addons.wait_ready()
        for machine in running:
            nodes.wait_ready(machine)
    for machine in NODES:
        if nodes.stopped(machine):
            say(f"{machine.name} stays stopped (`node start {machine.name}` starts it)")
    return changed


def _step(what: str, changed: bool) -> bool:
    if changed:
        say(f"{what}: started or repaired")
    return changed


def _ensure_machine(machine: Machine) -> bool:
    if machines.intact(machine):
        return False
    # Its processes, if any are left, live in namespaces that can't be entered any more.
    cgroups.kill(machine.name)
    machines.make(machine)
    return True


def down() -> bool:
    """End and remove everything but logs and caches; tell whether there was anything."""
    _require_root()
    if not cgroups.processes() and not RUN.exists() and not _state():
        images.release()
        return False
    with timed("stopping everything"):
        cgroups.kill()
        machines.release_host()
        images.release()
        cgroups.remove()
        for entry in _state():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return True


def _state() -> list[Path]:
    """Return what a cluster keeps beside its logs."""
    return [entry for entry in STATE.iterdir() if entry != LOGS] if STATE.is_dir() else []


def stop_node(machine: Machine) -> None:
    """Take a node away, as a power failure would."""
    _require_root()
    with exclusive(CLUSTER):
        nodes.stop(machine)


def start_node(machine: Machine) -> None:
    """Bring a stopped node back and wait until it is ready."""
    _require_root()
    with exclusive(CLUSTER):
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        nodes.start(machine)
        nodes.ensure(machine)
        # What the API server heard before it went away does not count.
        nodes.wait_ready(machine, since=started)
        addons.ensure()
        addons.wait_ready()


def report() -> tuple[str, bool]:
    """Return what runs and where its logs are, and whether all of it does."""
    lines, healthy = [], True
    known = services.recorded()
    if not known:
        return "not running (`make cluster` starts it)", False
    for label, service in known.items():
        off = service.machine.name in {m.name for m in NODES if nodes.stopped(m)}
        pid = service.pid()
        state = f"running, process {pid}" if pid else ("stopped" if off else "NOT RUNNING")
        healthy &= pid is not None or off
        lines.append(f"{label:32} {state:24} {service.log}")
    try:
        lines += ["", kubernetes.kubectl("get", "nodes", "-o", "wide", timeout=15)]
        lines += [kubernetes.kubectl("get", "pods", "--all-namespaces", timeout=15)]
    except ClusterError as error:
        healthy = False
        lines += ["", f"the API server does not answer: {error}"]
    lines.append(f"kubeconfig: {ADMIN_KUBECONFIG}")
    return "\n".join(lines), healthy


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError(
            "namespaces, mounts and control groups need root: run it with sudo, and keep "
            'your PATH so that Go is found: sudo env PATH="$PATH" make cluster'
        )
