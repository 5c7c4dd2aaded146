"""Names, labels and keys of everything that belongs to a job, all of them in this one file.

A job's name has at most 34 characters (a rule of the API). With eight of a hash of its uid and a
try's number of at most three digits a RayJob's name stays within the 47 that KubeRay allows, and a
job that is made again under the same name never meets the children of the one before.
"""

import hashlib
from dataclasses import dataclass

MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR = "dreambooth-operator"
JOB_LABEL = "dreambooth.dev/job"
UID_LABEL = "dreambooth.dev/job-uid"
ATTEMPT_LABEL = "dreambooth.dev/attempt"
# Kueue's; a RayJob that has it waits until the queue lets it start.
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# KubeRay's, on pods.
RAY_CLUSTER_LABEL = "ray.io/cluster"
RAY_NODE_TYPE_LABEL = "ray.io/node-type"

JOB_KEY = "job.json"
PROGRESS_KEY = "progress.json"

MAX_JOB_NAME = 34
MAX_RAY_JOB_NAME = 47
MAX_ATTEMPTS = 999


@dataclass(frozen=True)
class Names:
    """The names of one job's children.

    Attributes:
        job: The job's own name.
        namespace: Where all of them are.
        uid: The job's uid.
    """

    job: str
    namespace: str
    uid: str

    @property
    def base(self) -> str:
        """Name of the service account, role, role binding and network policy."""
        return f"{self.job}-{hashlib.sha256(self.uid.encode()).hexdigest()[:8]}"

    @property
    def job_config_map(self) -> str:
        """Holds the resolved job, the one place where user's text is."""
        return f"{self.base}-job"

    @property
    def progress_config_map(self) -> str:
        """Holds the progress record."""
        return f"{self.base}-progress"

    @property
    def claim(self) -> str:
        """The claim of the workspace, where the job asks for one of its own."""
        return f"{self.base}-workspace"

    def ray_job(self, attempt: int) -> str:
        """The RayJob of a try, counted from 1.

        Raises:
            ValueError: If the number has too many digits for KubeRay's limit.
        """
        if not 1 <= attempt <= MAX_ATTEMPTS:
            raise ValueError(f"a try has a number from 1 to {MAX_ATTEMPTS}, not {attempt}")
        return f"{self.base}-{attempt}"

    @property
    def labels(self) -> dict[str, str]:
        """On every child; the operator watches children by `JOB_LABEL`."""
        return {MANAGED_BY: OPERATOR, JOB_LABEL: self.job, UID_LABEL: self.uid}

    @property
    def selector(self) -> dict[str, str]:
        """What selects this very job's children."""
        return {UID_LABEL: self.uid}
