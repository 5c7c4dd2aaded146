"""The port: all that the operator asks of the Kubernetes API.

Objects are plain dictionaries, as JSON has them. Every call may raise any `KubeError`; those named
below have a meaning of their own. A call that ends in `Timeout` or `Unavailable` may have been
carried out nevertheless, so callers look again instead of assuming either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from dreambooth_operator.kube.kinds import Kind, Object, Ref

FIELD_MANAGER = "dreambooth-operator"
"""Owner of the fields that the operator applies, and its name in events."""


@dataclass(frozen=True)
class Event:
    """Something worth telling people about an object, as `kubectl describe` shows it.

    Attributes:
        type: Normal, or Warning if someone should look.
        reason: CamelCase word for programs.
        message: One sentence or two for people, at most 1024 characters.
    """

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class KubeApi(Protocol):
    """What the operator does with the API; implemented by the client and by fakes in tests."""

    async def get(self, ref: Ref) -> Object:
        """Read one object, consistently (never from a cache).

        Raises:
            NotFound: If there is none; `KindNotServed` if the API lacks the kind.
        """
        ...

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str]
    ) -> list[Object]:
        """Read all objects with these labels, in one namespace or (None) in all.

        Raises:
            KindNotServed: If the API lacks the kind.
        """
        ...

    async def apply(self, obj: Object) -> Object:
        """Server-side apply with the full intent, forced, as `FIELD_MANAGER`; makes the object.

        Raises:
            Conflict: If `metadata.resourceVersion` is given and another, or `metadata.uid` is given
                and there is no object.
            Invalid: If the API refuses the content, or `metadata.uid` is given and another.
        """
        ...

    async def apply_status(self, obj: Object) -> Object:
        """Server-side apply of the object's status alone; never makes the object.

        The API does not look at `metadata.uid` here: give `metadata.resourceVersion`, which no two
        objects share.

        Raises:
            NotFound: If the object is gone.
            Conflict: If `metadata.resourceVersion` is given and another.
            Invalid: If the API refuses the content.
        """
        ...

    async def check(self, obj: Object) -> None:
        """Let the API judge whether it would make the object, strictly, without making it.

        Raises:
            Invalid: If it would not, also for fields it does not know.
        """
        ...

    async def delete(self, ref: Ref, uid: str) -> None:
        """Delete the very object, its dependents in the background.

        Raises:
            NotFound: If it is gone already.
            Conflict: If another object has its name by now.
        """
        ...

    async def event(self, regarding: Object, event: Event) -> None:
        """Tell people about an object."""
        ...
