"""What every child has: the job's labels, and the job as its owner."""

from typing import Any

from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import JOB, Kind, Object


def child(job: Job, kind: Kind, name: str, **fields: Any) -> Object:
    """A child of the job: Kubernetes deletes it once the job is gone, operator or no operator."""
    obj = kind.new(job.names.namespace, name, **fields)
    obj["metadata"]["labels"] = job.names.labels
    obj["metadata"]["ownerReferences"] = [
        {
            "apiVersion": JOB.api_version,
            "kind": JOB.name,
            "name": job.names.job,
            "uid": job.names.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    return obj
