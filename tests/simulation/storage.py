"""Objects as they lie in the store of the API server in memory, and what is done with them."""

import marshal
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dreambooth_operator.kube.kinds import Kind, Object, Ref
from tests.simulation import ownership
from tests.simulation.judgement import list_key

# Set by the server alone, or not kept.
_SYSTEM = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields")


@dataclass(frozen=True)
class Stored:
    """An object as it lies in the store.

    Attributes:
        packed: The object; unpacking is the fastest copy of plain data that Python has.
        metadata: Its metadata, for the server alone.
        owners: Who owns which fields of the object.
        status_owners: Who owns which fields of its status.
    """

    packed: bytes
    metadata: Mapping[str, Any]
    owners: Mapping[str, frozenset[ownership.Path]]
    status_owners: Mapping[str, frozenset[ownership.Path]]

    @property
    def copy(self) -> Object:
        """The object, for whoever asked to keep."""
        found: Object = marshal.loads(self.packed)
        return found

    @cached_property
    def view(self) -> Object:
        """The object, for all to look at and nobody to change: parsing costs time."""
        return self.copy


def merge_patch(value: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, inner in patch.items():
        if inner is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), inner)
    return result


def bare(ref: Ref) -> Object:
    """The object without anything in it."""
    return ref.kind.new(ref.namespace, ref.name)


def without_system(obj: Object) -> Object:
    """A copy without what the server sets and what everybody says."""
    copy: Object = marshal.loads(marshal.dumps(obj))
    copy["metadata"] = {
        name: value for name, value in copy["metadata"].items() if name not in _SYSTEM
    }
    return copy


def spec_of(obj: Object) -> Object:
    """What a generation is about."""
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}


def keys_of(kind: Kind) -> ownership.Keys:
    """Which lists of the kind are maps."""
    return lambda path: list_key(kind, path)


def uid_of(ref: Ref, count: int) -> str:
    """The same in every life for the same object, whatever else was made before it."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{ref.path}#{count}"))
