"""Whoever else writes to the API: people, KubeRay, the driver. On the fake and on a real server."""

import itertools
from typing import Protocol

import requests

from dreambooth_operator.kube.errors import error_for
from dreambooth_operator.kube.kinds import EVENT, Kind, Object, Ref, ref_of
from tests.contract.control_plane import ControlPlane
from tests.simulation.server import ApiServer

_MANAGER = "somebody"
_numbers = itertools.count()


class Hands(Protocol):
    """What others than the operator do. Errors are those of the operator's port."""

    def namespace(self) -> str:
        """Make a namespace."""
        ...

    def apply(self, obj: Object) -> Object:
        """Server-side apply."""
        ...

    def patch(self, ref: Ref, patch: Object) -> Object:
        """Merge patch."""
        ...

    def patch_status(self, ref: Ref, status: Object) -> Object:
        """Merge patch of status."""
        ...

    def get(self, ref: Ref) -> Object:
        """Read."""
        ...

    def delete(self, ref: Ref) -> None:
        """Delete, dependents in the background."""
        ...

    def read_all(self, kind: Kind, namespace: str) -> list[Object]:
        """What there is of a kind."""
        ...

    def events(self, namespace: str) -> list[Object]:
        """What `kubectl get events` shows."""
        ...


class FakeHands:
    """On a server in memory."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def namespace(self) -> str:
        """See `Hands`."""
        name = f"test-{next(_numbers)}"
        self._server.namespaces.add(name)
        return name

    def apply(self, obj: Object) -> Object:
        """See `Hands`."""
        return self._server.apply(ref_of(obj), obj, _MANAGER)

    def patch(self, ref: Ref, patch: Object) -> Object:
        """See `Hands`."""
        return self._server.patch(ref, patch, _MANAGER)

    def patch_status(self, ref: Ref, status: Object) -> Object:
        """See `Hands`."""
        return self._server.patch_status(ref, status, _MANAGER)

    def get(self, ref: Ref) -> Object:
        """See `Hands`."""
        return self._server.get(ref)

    def delete(self, ref: Ref) -> None:
        """See `Hands`."""
        self._server.delete(ref)

    def read_all(self, kind: Kind, namespace: str) -> list[Object]:
        """See `Hands`."""
        return self._server.find_all(kind, namespace)

    def events(self, namespace: str) -> list[Object]:
        """See `Hands`."""
        return self.read_all(EVENT, namespace)


class RealHands:
    """On a real server."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def namespace(self) -> str:
        """See `Hands`."""
        name = f"test-{next(_numbers)}"
        self._plane.make_namespace(name)
        return name

    def apply(self, obj: Object) -> Object:
        """See `Hands`."""
        answer = self._plane.request(
            "PATCH",
            ref_of(obj).path,
            obj,
            content="application/apply-patch+yaml",
            fieldManager=_MANAGER,
            force="true",
            fieldValidation="Strict",
        )
        return _object(answer)

    def patch(self, ref: Ref, patch: Object) -> Object:
        """See `Hands`."""
        return self._merge(ref.path, patch)

    def patch_status(self, ref: Ref, status: Object) -> Object:
        """See `Hands`."""
        return self._merge(f"{ref.path}/status", {"status": status})

    def get(self, ref: Ref) -> Object:
        """See `Hands`."""
        return _object(self._plane.request("GET", ref.path))

    def delete(self, ref: Ref) -> None:
        """See `Hands`."""
        _object(self._plane.request("DELETE", ref.path, {"propagationPolicy": "Background"}))

    def read_all(self, kind: Kind, namespace: str) -> list[Object]:
        """See `Hands`."""
        path = f"{kind.path}/namespaces/{namespace}/{kind.plural}"
        what = {"apiVersion": kind.api_version, "kind": kind.name}
        return [what | obj for obj in _object(self._plane.request("GET", path))["items"]]

    def events(self, namespace: str) -> list[Object]:
        """See `Hands`."""
        return self.read_all(EVENT, namespace)

    def _merge(self, path: str, patch: Object) -> Object:
        return _object(
            self._plane.request(
                "PATCH", path, patch, content="application/merge-patch+json", fieldManager=_MANAGER
            )
        )


def _object(answer: requests.Response) -> Object:
    body: Object = answer.json()
    if not answer.ok:
        raise error_for(answer.status_code, body.get("message", ""))
    return body
