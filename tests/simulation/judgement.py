"""What the API server thinks of an object before it stores it.

Of DreamBoothJobs everything: defaults, schema and rules come from the API's own definition, judged
by the code that the `dreambooth` command judges with. Of other kinds what matters to the operator:
names, labels, sizes, and fields that cannot be changed.
"""

import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from dreambooth.api.crd import Schema, job_schema, with_defaults
from dreambooth.api.manifest import find_problems, update_problems
from dreambooth.api.problems import Problem
from dreambooth.api.schema import schema_problems
from dreambooth_operator.kube.errors import KubeError, error_for
from dreambooth_operator.kube.kinds import (
    CLAIM,
    CONFIG_MAP,
    JOB,
    NETWORK_POLICY,
    RAY_JOB,
    ROLE_BINDING,
    Kind,
    Object,
    Ref,
    ref_of,
)
from tests.simulation.ownership import Path

RAY_CLUSTER = Kind("ray.io/v1", "RayCluster", "rayclusters")
WITH_STATUS = (JOB, RAY_JOB, RAY_CLUSTER)
WITH_GENERATION = (*WITH_STATUS, NETWORK_POLICY)

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LARGEST_DATA = 2**20
_FIXED = {ROLE_BINDING: "roleRef", CLAIM: "spec"}


def place_of(obj: Object) -> Ref:
    """Where an object is; unlike the operator this knows RayClusters."""
    if obj["kind"] == RAY_CLUSTER.name:
        return Ref(RAY_CLUSTER, obj["metadata"]["namespace"], obj["metadata"]["name"])
    return ref_of(obj)


def stored_form(kind: Kind, obj: Object) -> Object:
    """The object with the defaults that the API server fills in."""
    if kind != JOB:
        return obj
    found: Object = json.loads(_job_with_defaults(json.dumps(obj)))
    return found


def judge(kind: Kind, old: Object | None, new: Object) -> None:
    """Refuse an object that is made, or changed from `old`.

    Raises:
        Invalid: As the API server would.
    """
    _judge_metadata(new["metadata"])
    if kind == JOB:
        before, after = _wanted(old) if old else "", _wanted(new)
        if before != after and (problems := _job_problems(before, after)):
            raise _refusal(kind, new, problems)
    if kind == CONFIG_MAP:
        size = sum(len(name) + len(text.encode()) for name, text in new.get("data", {}).items())
        if size > _LARGEST_DATA:
            raise error_for(422, f"ConfigMap is too long: {size} bytes")
    if old is not None and kind in _FIXED and old.get(_FIXED[kind]) != new.get(_FIXED[kind]):
        raise error_for(422, f"{kind.name}.{_FIXED[kind]}: field is immutable")


def judge_status(kind: Kind, obj: Object) -> None:
    """Refuse a status that the API's definition does not allow.

    Raises:
        Invalid: As the API server would.
    """
    if kind == JOB and (problems := _status_problems(json.dumps(obj.get("status", {})))):
        raise _refusal(kind, obj, problems)


def list_key(kind: Kind, path: Path) -> str | None:
    """The field that tells entries of a list apart, where the list is a map."""
    if path == ("metadata", "ownerReferences"):
        return "uid"
    return _job_list_keys().get(path) if kind == JOB else None


def _judge_metadata(metadata: Mapping[str, Any]) -> None:
    if not _NAME.fullmatch(metadata["name"]):
        raise error_for(422, f"metadata.name: Invalid value: {metadata['name']!r}")
    for name, value in metadata.get("labels", {}).items():
        if not isinstance(value, str) or not _LABEL.fullmatch(value):
            raise error_for(422, f"metadata.labels: Invalid value for {name}: {value!r}")


def _wanted(job: Object) -> str:
    """What people decide of a job, as text: what its problems depend on."""
    rest = {name: value for name, value in job.items() if name not in ("metadata", "status")}
    return json.dumps({**rest, "metadata": {"name": job["metadata"]["name"]}}, sort_keys=True)


@lru_cache(maxsize=4096)
def _job_with_defaults(job: str) -> str:
    return json.dumps(with_defaults(json.loads(job), job_schema()))


# Judging takes milliseconds, and thousands of simulated lives send the same few objects.
@lru_cache(maxsize=4096)
def _job_problems(old: str, new: str) -> tuple[Problem, ...]:
    if old:
        return tuple(update_problems(json.loads(old), json.loads(new)))
    return tuple(find_problems(json.loads(new)))


@lru_cache(maxsize=65536)
def _status_problems(status: str) -> tuple[Problem, ...]:
    schema = job_schema()["properties"]["status"]
    return tuple(schema_problems(json.loads(status), schema, ("status",)))


@cache
def _job_list_keys() -> dict[Path, str]:
    found: dict[Path, str] = {}

    def search(schema: Schema, at: Path) -> None:
        if schema.get("x-kubernetes-list-type") == "map":
            (found[at],) = schema["x-kubernetes-list-map-keys"]
        for name, field in schema.get("properties", {}).items():
            search(field, (*at, name))
        if "items" in schema:
            search(schema["items"], at)

    search(job_schema(), ())
    return found


def _refusal(kind: Kind, obj: Object, problems: tuple[Problem, ...]) -> KubeError:
    words = ", ".join(f"{problem}" for problem in problems)
    name = obj["metadata"]["name"]
    return error_for(422, f'{kind.name}.{JOB.api_version} "{name}" is invalid: {words}')
