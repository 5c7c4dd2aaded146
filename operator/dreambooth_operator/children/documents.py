"""The ConfigMaps between operator and driver: the job goes down, the progress record comes up."""

import json
from typing import Any

from dreambooth_operator.children.metadata import child
from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import CONFIG_MAP, JOB, Object
from dreambooth_operator.names import JOB_KEY


def job_config_map(job: Job) -> Object:
    """The job as the driver reads it: the one place where user's text is."""
    document: dict[str, Any] = {
        "apiVersion": JOB.api_version,
        "kind": JOB.name,
        "metadata": {
            "name": job.names.job,
            "namespace": job.names.namespace,
            "uid": job.names.uid,
        },
        "spec": dict(job.spec),
    }
    text = json.dumps(document, sort_keys=True)
    return child(job, CONFIG_MAP, job.names.job_config_map, data={JOB_KEY: text})


def progress_config_map(job: Job) -> Object:
    """Made empty; from then on only the driver writes it."""
    return child(job, CONFIG_MAP, job.names.progress_config_map)
