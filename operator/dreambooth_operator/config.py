"""The operator's settings: one YAML file, read once at start, refused if anything in it is wrong.

`operator/config.example.yaml` shows every setting with a comment. A pool is what a job asks for by
name: all that places pods and costs money is the administrator's and stands here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dreambooth_operator.settings_file import NAME, Section, SettingsError, read_settings

__all__ = ["Config", "SettingsError", "load_config"]

N = TypeVar("N", int, float)

_CPU = r"[1-9][0-9]*|[1-9][0-9]*m|[0-9]+\.[0-9]+"
_MEMORY = r"[1-9][0-9]*(Mi|Gi|Ti)"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
_PEER = ("podSelector", "namespaceSelector", "ipBlock")


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


def load_config(path: Path) -> Config:
    """Read the settings.

    Raises:
        SettingsError: If something is wrong; names file:line, field, what was found, what to do.
    """
    return read_settings(path, _config)


def _config(top: Section) -> Config:
    pools = _pools(top)
    default_pool = top.optional_text("defaultPool")
    if default_pool is not None and default_pool not in pools:
        known = ", ".join(sorted(pools))
        top.fail("defaultPool", f"is {default_pool!r}, which is no pool", f"Name one of {known}.")
    return Config(
        runtime=_runtime(top),
        pools=pools,
        default_pool=default_pool or (next(iter(pools)) if len(pools) == 1 else None),
        head=_head(top),
        workspace=_workspace(top),
        limits=_limits(top),
        namespaces=_namespaces(top),
        backoff=_backoff(top),
        network=_network(top),
        lease=_lease(top),
        progress_interval=top.integer("progressIntervalSeconds", 10, 1, 3600),
        resync_seconds=top.integer("resyncSeconds", 600, 30, 86400),
        concurrency=top.integer("concurrency", 8, 1, 64),
        watch_namespaces=top.texts("watchNamespaces", _LABEL, "namespaces"),
        port=top.integer("port", 8080, 1, 65535),
        log_level=top.choice("logLevel", "info", ("debug", "info", "warning", "error")),
    )


def _pools(top: Section) -> dict[str, Pool]:
    section = top.section("pools")
    if section is None or not list(section):
        top.fail("pools", "has no pool", "Name at least one pool of machines below it.")
    pools = {}
    for name in section:
        entry = section.section(name)
        if entry is None:
            section.fail(name, "is empty", "Give at least cpu and memory of one worker.")
        pools[name] = _pool(section, name, entry)
    section.finish()
    return pools


def _pool(parent: Section, name: str, entry: Section) -> Pool:
    if len(name) > 63 or not all(c.islower() or c.isdigit() or c == "-" for c in name):
        parent.fail(name, "is no name of a pool", "Use lower-case letters, digits and dashes.")
    pool = Pool(
        name=name,
        placement=_placement(entry),
        gpu_resource=entry.text_or(
            "gpuResource", "nvidia.com/gpu", r"[a-z0-9.-]+/[A-Za-z0-9._-]+", "a resource's name"
        ),
        gpus=entry.integer("gpusPerWorker", 1, 0, 64),
        cpu=entry.text("cpu", _CPU, 'the CPUs of one worker, such as 8 or "500m"'),
        memory=entry.text("memory", _MEMORY, "the memory of one worker, such as 64Gi"),
        shared_memory=entry.optional_text("sharedMemory", _MEMORY, "a size such as 16Gi"),
        price=entry.optional_number("pricePerGpuHour", 0, 1e6),
        currency=entry.text_or("currency", "USD", r"[A-Z]{3,8}", "a code such as EUR"),
        max_workers=entry.integer("maxWorkers", 64, 1, 64),
    )
    entry.finish()
    return pool


def _placement(entry: Section) -> Placement:
    return Placement(
        node_selector=entry.labels("nodeSelector"),
        tolerations=entry.objects("tolerations", _TOLERATION),
        priority_class=entry.optional_text("priorityClassName", NAME, "a PriorityClass's name"),
        runtime_class=entry.optional_text("runtimeClassName", NAME, "a RuntimeClass's name"),
    )


def _runtime(top: Section) -> Runtime:
    entry = top.section("runtime")
    if entry is None:
        top.fail("runtime", "is missing", "Give runtime.image, the image that jobs run.")
    runtime = Runtime(
        image=entry.text("image", r"[^\s]{1,512}", "the image that jobs run"),
        ray_version=entry.text_or(
            "rayVersion", "2.60.0", r"[0-9]+\.[0-9]+\.[0-9]+", "the image's Ray version"
        ),
        pull_policy=entry.choice(
            "imagePullPolicy", "IfNotPresent", ("Always", "IfNotPresent", "Never")
        ),
        pull_secrets=entry.texts("imagePullSecrets", NAME, "Secrets' names"),
    )
    entry.finish()
    return runtime


def _head(top: Section) -> Head:
    entry = top.section("head")
    if entry is None:
        return Head()
    head = Head(
        cpu=entry.text_or("cpu", "1", _CPU, 'CPUs, such as 1 or "500m"'),
        memory=entry.text_or("memory", "4Gi", _MEMORY, "a size such as 4Gi"),
        placement=_placement(entry),
    )
    entry.finish()
    return head


def _workspace(parent: Section) -> Workspace:
    entry = parent.section("workspace")
    if entry is None:
        return Workspace()
    workspace = Workspace(
        claim_name=entry.optional_text("claimName", NAME, "a claim's name"),
        size=entry.optional_text("size", _MEMORY, "a size such as 100Gi"),
        storage_class=entry.optional_text("storageClassName", NAME, "a StorageClass's name"),
    )
    if workspace.claim_name and (workspace.size or workspace.storage_class):
        parent.fail("workspace", "has claimName and size", "Give one of them.")
    if workspace.storage_class and not workspace.size:
        parent.fail("workspace", "has storageClassName without size", "Give size too.")
    entry.finish()
    return workspace


def _limits(parent: Section) -> Limits:
    entry = parent.section("limits")
    if entry is None:
        return Limits()
    limits = Limits(
        gpu_hours=entry.optional_number("gpuHours", 0.001, 1e6),
        provisioning_minutes=entry.optional_integer("provisioningMinutes", 1, 10080),
        run_minutes=entry.optional_integer("runMinutes", 1, 100000),
    )
    entry.finish()
    return limits


def _namespaces(top: Section) -> dict[str, Namespace]:
    section = top.section("namespaces")
    namespaces: dict[str, Namespace] = {}
    for name in section or ():
        entry = section.section(name) if section else None
        if entry is not None:
            namespaces[name] = Namespace(limits=_limits(entry), workspace=_workspace(entry))
            entry.finish()
    if section is not None:
        section.finish()
    return namespaces


def _backoff(top: Section) -> Backoff:
    entry = top.section("retryBackoff")
    if entry is None:
        return Backoff()
    backoff = Backoff(
        first_seconds=entry.integer("firstSeconds", 15, 1, 3600),
        max_seconds=entry.integer("maxSeconds", 600, 1, 86400),
    )
    if backoff.max_seconds < backoff.first_seconds:
        entry.fail("maxSeconds", "is less than firstSeconds", "Make it at least as long.")
    entry.finish()
    return backoff


def _network(top: Section) -> Network:
    entry = top.section("networkPolicy")
    if entry is None:
        return Network()
    network = Network(
        enabled=entry.flag("enabled", True),
        dashboard_peers=entry.objects("dashboardPeers", _PEER)
        if "dashboardPeers" in entry
        else Network.dashboard_peers,
        metrics_peers=entry.objects("metricsPeers", _PEER),
    )
    entry.finish()
    return network


def _lease(top: Section) -> Lease:
    entry = top.section("lease")
    if entry is None:
        return Lease()
    lease = Lease(
        enabled=entry.flag("enabled", False),
        name=entry.text_or("name", "dreambooth-operator", NAME, "a Lease's name"),
        seconds=entry.integer("seconds", 30, 6, 600),
    )
    entry.finish()
    return lease


def _first(own: N | None, general: N | None) -> N | None:
    return general if own is None else own
