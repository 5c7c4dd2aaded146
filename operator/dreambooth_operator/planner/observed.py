"""What was seen of a job's surroundings, all of it read at about the same time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from dreambooth_operator.clock import from_text
from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import CLAIM, CONFIG_MAP, Object, Ref


class KubeRay(Enum):
    """Whether RayJobs can be made as the operator makes them."""

    READY = "ready"
    MISSING = "missing"
    TOO_OLD = "too old"


@dataclass(frozen=True)
class Observed:
    """What there is.

    Attributes:
        objects: The lasting children, the claim and the ConfigMap of photos that exist.
        ray_jobs: All RayJobs of this very job, dying ones too.
        heads: Head pods of this very job.
        pods: All its pods, while its cluster is being made; nobody asks later.
        kuberay: Whether KubeRay is there.
        busy: Jobs that run now, in the whole cluster; more of them tell their progress less often.
    """

    objects: Mapping[Ref, Object] = field(default_factory=dict)
    ray_jobs: tuple[Object, ...] = ()
    heads: tuple[Object, ...] = ()
    kuberay: KubeRay = KubeRay.READY
    busy: int = 1
    pods: tuple[Object, ...] = ()

    def claim(self, namespace: str, name: str) -> Object | None:
        """A claim, if it exists."""
        return self.objects.get(Ref(CLAIM, namespace, name))

    def progress(self, job: Job) -> Object | None:
        """The progress ConfigMap, if it exists."""
        names = job.names
        return self.objects.get(Ref(CONFIG_MAP, names.namespace, names.progress_config_map))

    def ray_job(self, name: str) -> Object | None:
        """The job's RayJob of this name, if it exists."""
        for obj in self.ray_jobs:
            if name_of(obj) == name:
                return obj
        return None


def metadata(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """An object's metadata, whatever it holds."""
    return mapping(obj, "metadata")


def name_of(obj: Mapping[str, Any]) -> str:
    """An object's name."""
    return str(metadata(obj).get("name", ""))


def labels_of(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """An object's labels."""
    return mapping(metadata(obj), "labels")


def uid_of(obj: Mapping[str, Any]) -> str:
    """An object's uid."""
    return str(metadata(obj).get("uid", ""))


def created(obj: Mapping[str, Any]) -> datetime | None:
    """When an object was made."""
    return from_text(metadata(obj).get("creationTimestamp"))


def dying(obj: Mapping[str, Any]) -> bool:
    """Whether an object is being deleted."""
    return bool(metadata(obj).get("deletionTimestamp"))


def mapping(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping below another, empty if there is none."""
    value = parent.get(name)
    return value if isinstance(value, Mapping) else {}


def text(parent: Mapping[str, Any], name: str) -> str:
    """A text below a mapping, empty if there is none."""
    value = parent.get(name)
    return value if isinstance(value, str) else ""


def number(parent: Mapping[str, Any], name: str) -> int | None:
    """A whole number below a mapping."""
    value = parent.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
