"""The claim of a workspace that is made for one job."""

from dreambooth_operator.children.cluster import Cluster
from dreambooth_operator.children.metadata import child
from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import CLAIM, Object


def claim(job: Job, cluster: Cluster) -> Object:
    """A ReadWriteMany claim; it goes, with what is on it, when the job goes."""
    spec: Object = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": cluster.size}},
    }
    if cluster.storage_class:
        spec["storageClassName"] = cluster.storage_class
    return child(job, CLAIM, cluster.claim, spec=spec)
