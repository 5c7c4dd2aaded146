"""The kinds of objects that the operator deals with, and where the API serves them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""An object of the API as JSON has it, with apiVersion, kind and metadata."""


@dataclass(frozen=True)
class Kind:
    """A kind of namespaced objects.

    Attributes:
        api_version: Group and version, or only the version for the core group.
        name: As in an object's `kind`.
        plural: As in the API's paths.
    """

    api_version: str
    name: str
    plural: str

    @property
    def path(self) -> str:
        """Where the API serves the version: `/api/v1` or `/apis/<group>/<version>`."""
        return f"/{'apis' if '/' in self.api_version else 'api'}/{self.api_version}"

    def new(self, namespace: str, name: str, **fields: Any) -> Object:
        """An object of this kind with `fields` beside its metadata."""
        return {
            "apiVersion": self.api_version,
            "kind": self.name,
            "metadata": {"namespace": namespace, "name": name},
            **fields,
        }


JOB = Kind("dreambooth.dev/v1alpha1", "DreamBoothJob", "dreamboothjobs")
RAY_JOB = Kind("ray.io/v1", "RayJob", "rayjobs")
POD = Kind("v1", "Pod", "pods")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT = Kind("v1", "Event", "events")
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

KINDS: Mapping[tuple[str, str], Kind] = {
    (kind.api_version, kind.name): kind
    for kind in (
        JOB,
        RAY_JOB,
        POD,
        CONFIG_MAP,
        SERVICE_ACCOUNT,
        CLAIM,
        EVENT,
        ROLE,
        ROLE_BINDING,
        NETWORK_POLICY,
        LEASE,
    )
}


@dataclass(frozen=True)
class Ref:
    """Where an object is."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.name} {self.namespace}/{self.name}"

    @property
    def path(self) -> str:
        """The object's path in the API."""
        return f"{self.kind.path}/namespaces/{self.namespace}/{self.kind.plural}/{self.name}"


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """The kind of an object.

    Raises:
        KeyError: If the operator does not deal with it.
    """
    return KINDS[obj["apiVersion"], obj["kind"]]


def ref_of(obj: Mapping[str, Any]) -> Ref:
    """Where an object is, by its own metadata."""
    metadata = obj["metadata"]
    return Ref(kind_of(obj), metadata["namespace"], metadata["name"])
