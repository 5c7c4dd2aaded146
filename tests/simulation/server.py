"""An API server in memory: what the operator's world is made of in simulations.

It keeps objects packed, so that nobody shares one by accident, gives out uids and resource
versions, bumps generations when what is wanted changes, keeps status apart, and tells watchers of
every change. Garbage collection is the controller manager's and happens when asked for.

Not here: other patches than merge patches, field selectors, chunked lists, admission beyond
`judgement`, namespaces that are being deleted.
"""

import marshal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from dreambooth_operator.kube.errors import KindNotServed, error_for
from dreambooth_operator.kube.kinds import KINDS, Kind, Object, Ref
from tests.simulation import ownership
from tests.simulation.judgement import (
    RAY_CLUSTER,
    WITH_GENERATION,
    WITH_STATUS,
    judge,
    judge_status,
    stored_form,
)
from tests.simulation.storage import (
    Stored,
    bare,
    keys_of,
    merge_patch,
    spec_of,
    uid_of,
    without_system,
)

Change = Literal["ADDED", "MODIFIED", "DELETED"]
Watcher = Callable[[Change, Kind, Object], None]


@dataclass
class ApiServer:
    """The server.

    Attributes:
        now: Tells the time.
        served: The kinds it knows.
        namespaces: The namespaces that exist.
        watchers: Who is told of changes.
        made: How often each kind and name was made.
        past: Until when each object had which form, the oldest first; None while there was none.
    """

    now: Callable[[], datetime]
    served: set[Kind] = field(default_factory=lambda: {*KINDS.values(), RAY_CLUSTER})
    namespaces: set[str] = field(default_factory=lambda: {"default"})
    watchers: list[Watcher] = field(default_factory=list)
    made: dict[tuple[str, str], int] = field(default_factory=dict)
    past: dict[Ref, list[tuple[datetime, Stored | None]]] = field(default_factory=dict)
    _stored: dict[Ref, Stored] = field(default_factory=dict)
    # As if there had been others before.
    _revision: int = 1000

    def get(self, ref: Ref) -> Object:
        """Read one object.

        Raises:
            NotFound: If there is none; `KindNotServed` if the kind is not known.
        """
        return self._existing(ref).copy

    def get_all(self, kind: Kind, namespace: str | None, labels: Mapping[str, str]) -> list[Object]:
        """Read all objects with these labels.

        Raises:
            KindNotServed: If the kind is not known.
        """
        self._check_served(kind)
        return [stored.copy for stored in self._all(kind, namespace, labels)]

    def find(self, ref: Ref) -> Object | None:
        """An object to look at, or None if there is none."""
        stored = self._stored.get(ref)
        return stored.view if stored else None

    def find_all(
        self, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """All objects with these labels, to look at."""
        return [stored.view for stored in self._all(kind, namespace, labels or {})]

    def _all(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str]
    ) -> Iterable[Stored]:
        wanted = labels.items()
        return [
            stored
            for ref, stored in self._stored.items()
            if ref.kind == kind
            and namespace in (None, ref.namespace)
            and wanted <= stored.metadata.get("labels", {}).items()
        ]

    def as_of(self, ref: Ref, moment: datetime) -> Object | None:
        """What an object was at a moment, or None if there was none."""
        for until, stored in self.past.get(ref, ()):
            if until > moment:
                return stored.copy if stored else None
        current = self._stored.get(ref)
        return current.copy if current else None

    def refs(self) -> list[Ref]:
        """All objects there are."""
        return list(self._stored)

    def apply(self, ref: Ref, obj: Object, manager: str) -> Object:
        """Server-side apply, forced; makes the object if there is none."""
        self._check_served(ref.kind)
        stored = self._stored.get(ref)
        self._check_preconditions(ref, stored, obj["metadata"])
        intent = without_system(obj)
        if ref.kind in WITH_STATUS:
            intent.pop("status", None)
        live = stored.copy if stored else without_system(bare(ref))
        merged, owners = ownership.apply(
            live, intent, manager, stored.owners if stored else {}, keys_of(ref.kind)
        )
        base = stored or Stored(b"", {}, {}, {})
        return self._write(ref, stored, merged, replace(base, owners=owners))

    def apply_status(self, ref: Ref, obj: Object, manager: str) -> Object:
        """Server-side apply of status alone."""
        stored = self._existing(ref)
        self._check_preconditions(ref, stored, obj["metadata"], ("resourceVersion",))
        live = stored.copy
        part = {"status": live.pop("status", {})}
        merged, owners = ownership.apply(
            part,
            {"status": obj.get("status", {})},
            manager,
            stored.status_owners,
            keys_of(ref.kind),
        )
        return self._write(ref, stored, live | merged, replace(stored, status_owners=owners))

    def patch(self, ref: Ref, patch: Mapping[str, Any], manager: str) -> Object:
        """Merge patch, as `kubectl patch` and controllers other than ours write."""
        stored = self._existing(ref)
        old = stored.copy
        new = merge_patch(old, patch)
        if ref.kind in WITH_STATUS:
            new["status"] = old.get("status", {})
        owners = ownership.update(
            without_system(old),
            without_system(new),
            manager,
            stored.owners,
            keys_of(ref.kind),
        )
        return self._write(ref, stored, new, replace(stored, owners=owners))

    def patch_status(self, ref: Ref, status: Mapping[str, Any], manager: str) -> Object:
        """Merge patch of status alone."""
        stored = self._existing(ref)
        live = stored.copy
        before = {"status": live.get("status", {})}
        after = merge_patch(before, {"status": status})
        owners = ownership.update(before, after, manager, stored.status_owners, keys_of(ref.kind))
        return self._write(ref, stored, live | after, replace(stored, status_owners=owners))

    def delete(self, ref: Ref, uid: str | None = None) -> None:
        """Delete, or mark as being deleted while there are finalizers."""
        stored = self._existing(ref)
        obj = stored.copy
        if uid is not None and obj["metadata"]["uid"] != uid:
            raise error_for(409, f"Precondition failed: UID in precondition: {uid}")
        if obj["metadata"].get("finalizers"):
            if "deletionTimestamp" not in obj["metadata"]:
                obj["metadata"]["deletionTimestamp"] = self._time()
                obj["metadata"]["deletionGracePeriodSeconds"] = 0
                if "generation" in obj["metadata"]:
                    obj["metadata"]["generation"] += 1
                self._keep(ref, obj, stored, "MODIFIED")
            return
        self._drop(ref)

    def collect_garbage(self) -> bool:
        """Delete what only gone objects own; tell whether there was any."""
        uids = {stored.metadata["uid"] for stored in self._stored.values()}
        found = False
        for ref, stored in list(self._stored.items()):
            metadata = stored.metadata
            owners = metadata.get("ownerReferences", ())
            if owners and not any(owner["uid"] in uids for owner in owners):
                found = found or "deletionTimestamp" not in metadata
                self.delete(ref)
        return found

    def _write(self, ref: Ref, stored: Stored | None, obj: Object, form: Stored) -> Object:
        """Judge and store what somebody wants an object to be."""
        obj = stored_form(ref.kind, obj)
        old = stored.view if stored else None
        judge(ref.kind, old, obj)
        judge_status(ref.kind, obj)
        if stored is None or old is None:
            if ref.namespace not in self.namespaces:
                raise error_for(404, f'namespaces "{ref.namespace}" not found')
            count = (ref.kind.name, ref.name)
            self.made[count] = self.made.get(count, 0) + 1
            uid = uid_of(ref, self.made[count])
            obj["metadata"] |= {"uid": uid, "creationTimestamp": self._time()}
            if ref.kind in WITH_GENERATION:
                obj["metadata"]["generation"] = 1
            return self._keep(ref, obj, form, "ADDED")
        if obj == old:
            self._stored[ref] = replace(form, packed=stored.packed, metadata=stored.metadata)
            return stored.copy
        if ref.kind in WITH_GENERATION and spec_of(obj) != spec_of(old):
            obj["metadata"]["generation"] += 1
        if "deletionTimestamp" in obj["metadata"] and not obj["metadata"].get("finalizers"):
            self._drop(ref)
            return obj
        return self._keep(ref, obj, form, "MODIFIED")

    def _keep(self, ref: Ref, obj: Object, form: Stored, change: Change) -> Object:
        self._revision += 1
        obj["metadata"]["resourceVersion"] = str(self._revision)
        self._remember(ref)
        packed = marshal.dumps(obj)
        metadata = marshal.loads(packed)["metadata"]
        stored = self._stored[ref] = replace(form, packed=packed, metadata=metadata)
        self._tell(change, ref.kind, stored)
        return stored.copy

    def _drop(self, ref: Ref) -> None:
        self._revision += 1
        self._remember(ref)
        self._tell("DELETED", ref.kind, self._stored.pop(ref))

    def _remember(self, ref: Ref) -> None:
        self.past.setdefault(ref, []).append((self.now(), self._stored.get(ref)))

    def _tell(self, change: Change, kind: Kind, stored: Stored) -> None:
        for watcher in list(self.watchers):
            watcher(change, kind, stored.view)

    def _existing(self, ref: Ref) -> Stored:
        self._check_served(ref.kind)
        if ref not in self._stored:
            raise error_for(404, f'{ref.kind.plural} "{ref.name}" not found')
        return self._stored[ref]

    def _check_served(self, kind: Kind) -> None:
        if kind not in self.served:
            raise KindNotServed("the server could not find the requested resource", status=404)

    def _check_preconditions(
        self,
        ref: Ref,
        stored: Stored | None,
        metadata: Object,
        names: tuple[str, ...] = ("resourceVersion", "uid"),
    ) -> None:
        """Refuse to write to another object than the one that was meant; status knows no uid."""
        found = stored.metadata if stored else {}
        for name in names:
            wanted = metadata.get(name)
            if wanted is not None and wanted != found.get(name):
                status = 422 if stored and name == "uid" else 409
                raise error_for(status, f"{ref}: {name} is {found.get(name)}, not {wanted}")

    def _time(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
