"""The operator's settings, as the administrator gave them.

`operator/config.example.yaml` shows every setting with a comment; `config_file.py` reads it. A pool
is what a job asks for by name: all that places pods and costs money is the administrator's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Placement:
    """Where pods may run.

    Attributes:
        node_selector: Labels of the nodes.
        tolerations: As in a pod's spec.
        priority_class: Name of a PriorityClass.
        runtime_class: Name of a RuntimeClass, such as nvidia.
    """

    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    priority_class: str | None = None
    runtime_class: str | None = None


@dataclass(frozen=True)
class Pool:
    """Machines under a name.

    Attributes:
        gpu_resource: What Kubernetes calls the GPUs, such as nvidia.com/gpu.
        gpus: GPUs of one worker; 0 for a pool without.
        cpu: CPUs of one worker, as Kubernetes writes them.
        memory: Memory of one worker, such as 64Gi.
        shared_memory: Size of /dev/shm; KubeRay chooses when None.
        price: What one GPU costs an hour; None if nobody asks.
        currency: Of the price.
        max_workers: The most that one job may ask for.
    """

    name: str
    placement: Placement
    gpu_resource: str
    gpus: int
    cpu: str
    memory: str
    shared_memory: str | None
    price: float | None
    currency: str
    max_workers: int


@dataclass(frozen=True)
class Head:
    """The head of each Ray cluster, which runs the driver and computes nothing."""

    cpu: str = "1"
    memory: str = "4Gi"
    placement: Placement = Placement()


@dataclass(frozen=True)
class Runtime:
    """The image that all pods of a job run."""

    image: str
    ray_version: str = "2.60.0"
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workspace:
    """Where jobs keep their files that do not say: a claim that exists, or one made for each."""

    claim_name: str | None = None
    size: str | None = None
    storage_class: str | None = None


@dataclass(frozen=True)
class Limits:
    """Where jobs stop at the latest; None is no limit."""

    gpu_hours: float | None = None
    provisioning_minutes: int | None = None
    run_minutes: int | None = None


@dataclass(frozen=True)
class Namespace:
    """What differs for the jobs of one namespace."""

    limits: Limits = Limits()
    workspace: Workspace = Workspace()


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a job is tried again: doubled each time, with jitter."""

    first_seconds: int = 15
    max_seconds: int = 600


@dataclass(frozen=True)
class Network:
    """Who may reach a job's pods beside themselves, as peers of a NetworkPolicy.

    Attributes:
        enabled: Whether jobs get a NetworkPolicy.
        dashboard_peers: May reach Ray's dashboard, through which KubeRay submits.
        metrics_peers: May read Ray's metrics.
    """

    enabled: bool = True
    dashboard_peers: tuple[dict[str, Any], ...] = (
        {
            "namespaceSelector": {},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
        },
    )
    metrics_peers: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Lease:
    """The lock that lets only one of several operators work."""

    enabled: bool = False
    name: str = "dreambooth-operator"
    seconds: int = 30


@dataclass(frozen=True)
class Config:
    """All settings. See `operator/config.example.yaml`.

    Attributes:
        progress_interval: Seconds between two writes of the same job's progress.
        resync_seconds: How often every job is looked at though nothing seems to have happened.
        concurrency: Jobs that are looked at at the same time.
        watch_namespaces: Whose jobs are run; all if empty.
        port: Where health and metrics are served.
    """

    runtime: Runtime
    pools: Mapping[str, Pool]
    default_pool: str | None = None
    head: Head = Head()
    workspace: Workspace = Workspace()
    limits: Limits = Limits()
    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    backoff: Backoff = Backoff()
    network: Network = Network()
    lease: Lease = Lease()
    progress_interval: int = 10
    resync_seconds: int = 600
    concurrency: int = 8
    watch_namespaces: tuple[str, ...] = ()
    port: int = 8080
    log_level: str = "info"

    def limits_in(self, namespace: str) -> Limits:
        """The administrator's limits for jobs of a namespace, its own before the general ones."""
        own = self.namespaces.get(namespace, Namespace()).limits
        return Limits(
            gpu_hours=_first(own.gpu_hours, self.limits.gpu_hours),
            provisioning_minutes=_first(own.provisioning_minutes, self.limits.provisioning_minutes),
            run_minutes=_first(own.run_minutes, self.limits.run_minutes),
        )

    def workspace_in(self, namespace: str) -> Workspace:
        """Where jobs of a namespace keep their files that do not say."""
        own = self.namespaces.get(namespace, Namespace()).workspace
        return own if own.claim_name or own.size else self.workspace


def _first(own: N | None, general: N | None) -> N | None:
    return general if own is None else own
