"""Small objects for tests of the API."""

from typing import Any

from dreambooth_operator.kube.kinds import CONFIG_MAP, RAY_JOB, Object
from tests.unit.api.rule_cases import a_manifest

OTHER_UID = "00000000-1111-2222-3333-444444444444"


def a_job(namespace: str, **changes: Any) -> Object:
    return a_manifest(**{"metadata.namespace": namespace}, **changes)


def a_config_map(namespace: str, **data: str) -> Object:
    return CONFIG_MAP.new(namespace, "photos", data=data)


def a_ray_job(namespace: str, **spec: Any) -> Object:
    return RAY_JOB.new(namespace, "rex-1", spec={"entrypoint": "dreambooth", **spec})


def a_status(job: Object, **status: Any) -> Object:
    """The status alone, as the operator applies it to the very job."""
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "metadata": {name: job["metadata"][name] for name in ("name", "namespace", "uid")},
        "status": status,
    }


def a_condition(name: str, message: str = "") -> Object:
    return {
        "type": name,
        "status": "True",
        "lastTransitionTime": "2026-11-25T12:00:00Z",
        "reason": "Because",
        "message": message,
    }


def version(obj: Object) -> str:
    found: str = obj["metadata"]["resourceVersion"]
    return found
