"""Programs that come from Debian packages."""

import os
import shutil
from pathlib import Path

from localcluster.commands import run, run_logged
from localcluster.console import say
from localcluster.errors import ClusterError
from localcluster.layout import CACHE

CNI_PLUGINS = Path("/usr/lib/cni")
# A program (or file) that shows a package is there, and the package.
FOR_NODES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "socat": "socat",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
}
FOR_IMAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "skopeo": "skopeo"}


def missing(wanted: dict[str, str]) -> list[str]:
    """Return the packages whose programs are not there."""
    return sorted({package for program, package in wanted.items() if not shutil.which(program)})


def ensure(wanted: dict[str, str]) -> bool:
    """Install what is missing, after saying so; tell whether anything was.

    Raises:
        ClusterError: not root; the message has the command to run.
    """
    packages = missing(wanted)
    if not packages:
        return False
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if os.geteuid() != 0:
        raise ClusterError(f"missing Debian packages; run: sudo {' '.join(command)}")
    if not shutil.which("apt-get"):
        raise ClusterError(f"not a Debian system; install by hand: {' '.join(packages)}")
    say(f"installing Debian packages: {' '.join(packages)}")
    # Packages that bring a service must not start it: the cluster runs its own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    run(["apt-get", "update"], timeout=300)
    run_logged(command, CACHE / "logs" / "apt.log", environment=environment, timeout=600)
    if still := missing(wanted):
        raise ClusterError(f"installed, but not found afterwards: {' '.join(still)}")
    return True
