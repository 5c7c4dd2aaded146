"""Pod templates of a job's Ray cluster: restricted Pod Security, fixed commands, no user text."""

from dataclasses import dataclass

from dreambooth_operator.children.cluster import Cluster, WorkerGroup
from dreambooth_operator.config import Config, Placement
from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import Object
from dreambooth_operator.names import ATTEMPT_LABEL

WORKSPACE = "/workspace"
JOB_FOLDER = "/etc/dreambooth/job"
PHOTOS_FOLDER = "/etc/dreambooth/photos"
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
# The user of Ray's own images; shared volumes belong to group 100.
USER, GROUP = 1000, 100
HEAD_GRACE_SECONDS = 60
# A worker has nothing to do but to be there while the driver stops, and Ray's processes in it don't
# end by themselves: so long it keeps its GPUs.
WORKER_GRACE_SECONDS = 20
# Ray kills a driver so many seconds after telling it to stop; its own 3 are too few to end workers.
DRIVER_STOP_SECONDS = 15
# How long a worker stays when its pod is told to go, so that the driver can stop in an orderly way.
CLEAN_STOP_SECONDS = 5

RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}

# Kubernetes signals a container's first process, which is Ray; the driver has to be told apart.
STOP_DRIVER = """
driver() {
  for folder in /proc/[0-9]*; do
    if tr '\\0' ' ' < "$folder/cmdline" 2>/dev/null | grep -q '[d]reambooth drive'; then
      echo "${folder#/proc/}"
    fi
  done
}
for process in $(driver); do kill -TERM "$process"; done
for second in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  if [ -z "$(driver)" ]; then exit 0; fi
  sleep 1
done
""".strip()


@dataclass(frozen=True)
class Try:
    """What differs from one try to the next.

    Attributes:
        number: Counted from 1.
        interval: Seconds between two writes of progress.
        gpu_seconds_used: GPU-seconds of all earlier tries.
        gpu_seconds_limit: What all tries may use together, or None.
    """

    number: int
    interval: int
    gpu_seconds_used: float
    gpu_seconds_limit: float | None


def head_template(job: Job, cluster: Cluster, attempt: Try, config: Config) -> Object:
    """The head's pod: runs the driver, has the one token, offers Ray no CPUs."""
    head = config.head
    environment = _environment(cluster) | {
        "DREAMBOOTH_PROGRESS_CONFIGMAP": job.names.progress_config_map,
        "DREAMBOOTH_NAMESPACE": job.names.namespace,
        "DREAMBOOTH_ATTEMPT": str(attempt.number),
        "DREAMBOOTH_PROGRESS_INTERVAL": str(attempt.interval),
        "DREAMBOOTH_GPU_SECONDS_USED": f"{attempt.gpu_seconds_used:.3f}",
        "RAY_JOB_STOP_WAIT_TIME_S": str(DRIVER_STOP_SECONDS),
    }
    if attempt.gpu_seconds_limit is not None:
        environment["DREAMBOOTH_GPU_SECONDS_LIMIT"] = f"{attempt.gpu_seconds_limit:.3f}"
    ports = {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
    container = {
        **_container("ray-head", job, config, environment),
        "resources": _resources({"cpu": head.cpu, "memory": head.memory}),
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()
        ],
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", STOP_DRIVER]}}},
    }
    container["volumeMounts"] += [
        {"name": "job", "mountPath": JOB_FOLDER, "readOnly": True},
        {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
    ]
    template = _template(job, cluster, attempt, config, head.placement, container)
    template["spec"]["terminationGracePeriodSeconds"] = HEAD_GRACE_SECONDS
    template["spec"]["serviceAccountName"] = job.names.base
    template["spec"]["volumes"] += [
        {"name": "job", "configMap": {"name": job.names.job_config_map}},
        {"name": "token", "projected": {"sources": _token_sources()}},
    ]
    return template


def worker_template(
    job: Job, cluster: Cluster, group: WorkerGroup, attempt: Try, config: Config
) -> Object:
    """A worker's pod: the pool's resources and place, and no token."""
    pool = group.pool
    limits: Object = {"cpu": pool.cpu, "memory": pool.memory}
    if pool.gpus:
        limits[pool.gpu_resource] = str(pool.gpus)
    wait = ["/bin/sh", "-c", f"sleep {CLEAN_STOP_SECONDS}"]
    container = {
        **_container("ray-worker", job, config, _environment(cluster)),
        "resources": _resources(limits),
        "lifecycle": {"preStop": {"exec": {"command": wait}}},
    }
    template = _template(job, cluster, attempt, config, pool.placement, container)
    template["spec"]["terminationGracePeriodSeconds"] = WORKER_GRACE_SECONDS
    if pool.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": pool.shared_memory}
        template["spec"]["volumes"].append({"name": "shared-memory", "emptyDir": memory})
        container["volumeMounts"].append({"name": "shared-memory", "mountPath": "/dev/shm"})
    return template


def _environment(cluster: Cluster) -> dict[str, str]:
    return {
        "DREAMBOOTH_WORKSPACE": WORKSPACE,
        "DREAMBOOTH_MOUNTS": PHOTOS_FOLDER,
        "DREAMBOOTH_GPUS": str(cluster.gpus),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _container(name: str, job: Job, config: Config, environment: dict[str, str]) -> Object:
    mounts: list[Object] = [
        {"name": "workspace", "mountPath": WORKSPACE},
        {"name": "ray", "mountPath": "/tmp/ray"},
    ]
    if mount := job.photo_mount():
        folder = f"{PHOTOS_FOLDER}/{mount[0]}/{mount[1]}"
        mounts.append({"name": "photos", "mountPath": folder, "readOnly": True})
    return {
        "name": name,
        "image": config.runtime.image,
        "imagePullPolicy": config.runtime.pull_policy,
        "securityContext": RESTRICTED,
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "envFrom": [{"secretRef": {"name": secret}} for secret in job.secret_refs()],
        "volumeMounts": mounts,
    }


def _template(
    job: Job,
    cluster: Cluster,
    attempt: Try,
    config: Config,
    placement: Placement,
    container: Object,
) -> Object:
    spec: Object = {
        "containers": [container],
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": GROUP,
            "fsGroup": GROUP,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": _volumes(job, cluster),
    }
    if placement.node_selector:
        spec["nodeSelector"] = dict(placement.node_selector)
    if placement.tolerations:
        spec["tolerations"] = [dict(toleration) for toleration in placement.tolerations]
    if placement.priority_class:
        spec["priorityClassName"] = placement.priority_class
    if placement.runtime_class:
        spec["runtimeClassName"] = placement.runtime_class
    if config.runtime.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in config.runtime.pull_secrets]
    labels = job.names.labels | {ATTEMPT_LABEL: str(attempt.number)}
    return {"metadata": {"labels": labels}, "spec": spec}


def _volumes(job: Job, cluster: Cluster) -> list[Object]:
    volumes: list[Object] = [
        {"name": "workspace", "persistentVolumeClaim": {"claimName": cluster.claim}},
        {"name": "ray", "emptyDir": {}},
    ]
    if mount := job.photo_mount():
        kind, name = mount
        source = {"name": name} if kind == "configMap" else {"secretName": name}
        volumes.append({"name": "photos", kind: source})
    return volumes


def _resources(limits: Object) -> Object:
    # Ray counts limits and ignores requests: only equal ones mean what they say.
    return {"limits": limits, "requests": dict(limits)}


def _token_sources() -> list[Object]:
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    authority = {"key": "ca.crt", "path": "ca.crt"}
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [authority]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
