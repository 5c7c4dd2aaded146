"""Whether a job can run here, and on what: the administrator's pools, workspace and KubeRay."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dreambooth_operator.children.cluster import DRAWING, TRAINING, Cluster, WorkerGroup
from dreambooth_operator.config import Config, Pool
from dreambooth_operator.job import Group, Job
from dreambooth_operator.kube.kinds import CLAIM, CONFIG_MAP, Ref
from dreambooth_operator.names import MAX_JOB_NAME
from dreambooth_operator.planner.observed import KubeRay, Observed, mapping
from dreambooth_operator.reasons import Reason


@dataclass(frozen=True)
class Problem:
    """Why a job cannot run yet. It is tried again as soon as that has changed."""

    reason: Reason
    message: str


def resolve(job: Job, config: Config) -> Cluster | Problem:
    """The machines and the claim that a job asks for, by the settings alone."""
    if len(job.names.job) > MAX_JOB_NAME:
        return Problem(
            Reason.INVALID_JOB,
            f"The name has more than {MAX_JOB_NAME} characters. Make the job anew with a "
            "shorter one.",
        )
    training = _pool(job.training, config, "spec.cluster.pool")
    if isinstance(training, Problem):
        return training
    groups = [WorkerGroup("workers", training, job.training.workers)]
    if job.drawing:
        drawing = _pool(job.drawing, config, "spec.cluster.generation.pool")
        if isinstance(drawing, Problem):
            return drawing
        groups = [
            WorkerGroup("training", training, job.training.workers, offers=TRAINING),
            WorkerGroup("drawing", drawing, job.drawing.workers, offers=DRAWING),
        ]
    return _with_claim(job, config, tuple(groups))


def obstacle(job: Job, cluster: Cluster, observed: Observed) -> Problem | None:
    """What else keeps a job from running, by what there is in the cluster."""
    return _kuberay(observed) or _claim(job, cluster, observed) or _photos(job, observed)


def needed(job: Job, config: Config) -> list[Ref]:
    """Objects of others that have to be looked at to judge the job."""
    cluster = resolve(job, config)
    refs = [] if isinstance(cluster, Problem) else [_claim_ref(job, cluster)]
    mount = job.photo_mount()
    if mount and mount[0] == "configMap":
        refs.append(Ref(CONFIG_MAP, job.names.namespace, mount[1]))
    return refs


def _pool(group: Group, config: Config, field: str) -> Pool | Problem:
    known = ", ".join(sorted(config.pools))
    name = group.pool or config.default_pool
    if name is None:
        return Problem(
            Reason.NO_POOL,
            f"{field}: there is no default pool. Make the job anew with one of these: {known}.",
        )
    pool = config.pools.get(name)
    if pool is None:
        return Problem(
            Reason.UNKNOWN_POOL,
            f"{field}: there is no pool {name}. Make the job anew with one of these: {known}.",
        )
    if group.workers > pool.max_workers:
        return Problem(
            Reason.TOO_MANY_WORKERS,
            f"{field.removesuffix('pool')}workers: {group.workers} are more than the "
            f"{pool.max_workers} that pool {name} gives to one job. Make the job anew with fewer.",
        )
    return pool


def _with_claim(job: Job, config: Config, groups: tuple[WorkerGroup, ...]) -> Cluster | Problem:
    default = config.workspace_in(job.names.namespace)
    name, size, storage = job.claim_name, job.claim_size, job.storage_class
    if not name and not size:
        name, size, storage = default.claim_name, default.size, default.storage_class
    if size:
        return Cluster(groups, job.names.claim, owned=True, size=size, storage_class=storage)
    if name:
        return Cluster(groups, name, owned=False)
    return Problem(
        Reason.NO_WORKSPACE,
        "spec.workspace: there is no default volume. Make the job anew with workspace.claimName, "
        "a claim that exists, or workspace.size, to have one made.",
    )


def _kuberay(observed: Observed) -> Problem | None:
    if observed.kuberay is KubeRay.MISSING:
        return Problem(
            Reason.KUBERAY_NOT_FOUND,
            "KubeRay is not installed in this cluster. The administrator has to install KubeRay "
            "1.6 or newer; the job starts then.",
        )
    if observed.kuberay is KubeRay.TOO_OLD:
        return Problem(
            Reason.KUBERAY_TOO_OLD,
            "The KubeRay of this cluster is older than 1.6. The administrator has to upgrade it, "
            "its CustomResourceDefinitions too; the job starts then.",
        )
    return None


def _claim_ref(job: Job, cluster: Cluster) -> Ref:
    return Ref(CLAIM, job.names.namespace, cluster.claim)


def _claim(job: Job, cluster: Cluster, observed: Observed) -> Problem | None:
    if cluster.owned:
        return None
    claim = observed.objects.get(_claim_ref(job, cluster))
    if claim is None:
        return Problem(
            Reason.CLAIM_NOT_FOUND,
            f"spec.workspace.claimName: there is no claim {cluster.claim} in namespace "
            f"{job.names.namespace}. Make it, with access mode ReadWriteMany; the job starts then.",
        )
    modes = mapping(claim, "spec").get("accessModes")
    if not isinstance(modes, list) or "ReadWriteMany" not in modes:
        return Problem(
            Reason.CLAIM_NOT_SHARED,
            f"spec.workspace.claimName: claim {cluster.claim} is {_words(claim)}, and the pods of "
            "a job run on several nodes. Make the job anew with a claim that is ReadWriteMany.",
        )
    return None


def _words(claim: Mapping[str, Any]) -> str:
    modes = mapping(claim, "spec").get("accessModes")
    found = [str(mode) for mode in modes] if isinstance(modes, list) else []
    return ", ".join(found) or "of no access mode"


def _photos(job: Job, observed: Observed) -> Problem | None:
    mount = job.photo_mount()
    if not mount or mount[0] != "configMap":
        return None  # Secrets cannot be looked at, and the kubelet waits for them by itself.
    if Ref(CONFIG_MAP, job.names.namespace, mount[1]) in observed.objects:
        return None
    return Problem(
        Reason.PHOTOS_CONFIG_MAP_NOT_FOUND,
        f"spec.subject.photos.configMap: there is no ConfigMap {mount[1]} in namespace "
        f"{job.names.namespace}. Make it, with a photo in each key of binaryData; the job starts "
        "then.",
    )
