"""Reads the settings: one YAML file, once at start, refused if anything in it is wrong."""

from pathlib import Path

from dreambooth_operator.config import (
    Backoff,
    Config,
    Head,
    Lease,
    Limits,
    Namespace,
    Network,
    Placement,
    Pool,
    Runtime,
    Workspace,
)
from dreambooth_operator.settings_file import NAME, Section, read_settings

_CPU = r"[1-9][0-9]*|[1-9][0-9]*m|[0-9]+\.[0-9]+"
_MEMORY = r"[1-9][0-9]*(Mi|Gi|Ti)"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
_PEER = ("podSelector", "namespaceSelector", "ipBlock")


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
