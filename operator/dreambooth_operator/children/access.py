"""What the driver may do: read and patch its own progress ConfigMap, nothing else."""

from dreambooth_operator.children.metadata import child
from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import ROLE, ROLE_BINDING, SERVICE_ACCOUNT, Object


def service_account(job: Job) -> Object:
    """The driver's identity; only the head pod gets a token, by projection."""
    return child(job, SERVICE_ACCOUNT, job.names.base, automountServiceAccountToken=False)


def role(job: Job) -> Object:
    """Permission for the one ConfigMap."""
    rule = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": [job.names.progress_config_map],
        "verbs": ["get", "patch"],
    }
    return child(job, ROLE, job.names.base, rules=[rule])


def role_binding(job: Job) -> Object:
    """Gives the permission to the driver."""
    subject = {
        "kind": "ServiceAccount",
        "name": job.names.base,
        "namespace": job.names.namespace,
    }
    reference = {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": job.names.base,
    }
    return child(job, ROLE_BINDING, job.names.base, subjects=[subject], roleRef=reference)
