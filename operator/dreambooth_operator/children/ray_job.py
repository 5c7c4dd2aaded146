"""The RayJob of one try: KubeRay makes the cluster, submits the driver and takes both down."""

import json

from dreambooth_operator.children.cluster import Cluster, WorkerGroup
from dreambooth_operator.children.metadata import child
from dreambooth_operator.children.pods import JOB_FOLDER, Try, head_template, worker_template
from dreambooth_operator.config import Config
from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import RAY_JOB, Object
from dreambooth_operator.names import ATTEMPT_LABEL, JOB_KEY, QUEUE_LABEL

# A shell parses it, so it is fixed and has nothing to quote.
ENTRYPOINT = f"dreambooth drive {JOB_FOLDER}/{JOB_KEY}"


def ray_job(job: Job, cluster: Cluster, attempt: Try, config: Config) -> Object:
    """The RayJob of a try.

    KubeRay retries nothing (`backoffLimit` 0): the operator does, because it knows whose failure
    it was. Over HTTP there is no submitter pod that could fail in between.
    """
    obj = child(
        job,
        RAY_JOB,
        job.names.ray_job(attempt.number),
        spec={
            "submissionMode": "HTTPMode",
            "entrypoint": ENTRYPOINT,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 0,
            "backoffLimit": 0,
            "rayClusterSpec": {
                "rayVersion": config.runtime.ray_version,
                "authOptions": {"mode": "token"},
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                    "template": head_template(job, cluster, attempt, config),
                },
                "workerGroupSpecs": [
                    _worker_group(job, cluster, group, attempt, config) for group in cluster.groups
                ],
            },
        },
    )
    labels = obj["metadata"]["labels"] | {ATTEMPT_LABEL: str(attempt.number)}
    if job.queue:
        # From here on Kueue decides when it may start, through spec.suspend.
        labels[QUEUE_LABEL] = job.queue
    obj["metadata"]["labels"] = labels
    return obj


def _worker_group(
    job: Job, cluster: Cluster, group: WorkerGroup, attempt: Try, config: Config
) -> Object:
    parameters = {}
    if group.pool.gpus:
        # KubeRay guesses it from the resource's name, and not all names say gpu.
        parameters["num-gpus"] = str(group.pool.gpus)
    if group.offers:
        # KubeRay puts the value into a shell command as it is.
        parameters["resources"] = json.dumps(json.dumps({group.offers: 1}))
    return {
        "groupName": group.name,
        "replicas": group.workers,
        "minReplicas": group.workers,
        "maxReplicas": group.workers,
        "rayStartParams": parameters,
        "template": worker_template(job, cluster, group, attempt, config),
    }
