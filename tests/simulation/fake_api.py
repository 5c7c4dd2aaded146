"""The operator's port, on the server in memory, with a place for faults at every call."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from dreambooth_operator.kube.client import event_object
from dreambooth_operator.kube.errors import error_for
from dreambooth_operator.kube.kinds import EVENT, Kind, Object, Ref, ref_of
from dreambooth_operator.kube.port import FIELD_MANAGER, Event
from tests.simulation.judgement import judge, judge_status, stored_form
from tests.simulation.server import ApiServer

T = TypeVar("T")

Verb = Literal["get", "list", "apply", "apply_status", "check", "delete", "event"]
WRITES: frozenset[Verb] = frozenset({"apply", "apply_status", "delete", "event"})


@dataclass(frozen=True)
class Call:
    """One call of the operator.

    Attributes:
        verb: What is asked.
        kind: Of what.
        name: Name of the object; empty for lists.
    """

    verb: Verb
    kind: Kind
    name: str

    @property
    def is_write(self) -> bool:
        """Whether it can change anything."""
        return self.verb in WRITES

    def __str__(self) -> str:
        return f"{self.verb} {self.kind.name} {self.name}".rstrip()


class Line(Protocol):
    """What lies between the operator and the server."""

    async def carry(self, call: Call, perform: Callable[[], T]) -> T:
        """Have the call performed, or not, and answer what the operator gets to see."""
        ...


class GoodLine:
    """A line without faults."""

    async def carry(self, call: Call, perform: Callable[[], T]) -> T:
        """Have the call performed."""
        return perform()


class FakeApi:
    """`KubeApi` on a server in memory.

    Args:
        server: The server.
        line: What lies between.
    """

    def __init__(self, server: ApiServer, line: Line | None = None) -> None:
        self._server = server
        self._line = line or GoodLine()

    async def get(self, ref: Ref) -> Object:
        """See `KubeApi`."""
        return await self._carry("get", ref.kind, ref.name, lambda: self._server.get(ref))

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str]
    ) -> list[Object]:
        """See `KubeApi`."""
        return await self._carry(
            "list", kind, "", lambda: self._server.get_all(kind, namespace, labels)
        )

    async def apply(self, obj: Object) -> Object:
        """See `KubeApi`."""
        ref, sent = ref_of(obj), _sent(obj)
        return await self._carry(
            "apply", ref.kind, ref.name, lambda: self._server.apply(ref, sent, FIELD_MANAGER)
        )

    async def apply_status(self, obj: Object) -> Object:
        """See `KubeApi`."""
        ref, sent = ref_of(obj), _sent(obj)
        return await self._carry(
            "apply_status",
            ref.kind,
            ref.name,
            lambda: self._server.apply_status(ref, sent, FIELD_MANAGER),
        )

    async def check(self, obj: Object) -> None:
        """See `KubeApi`."""
        ref, sent = ref_of(obj), _sent(obj)

        def perform() -> None:
            if self._server.find(ref) is not None:
                raise error_for(409, f'{ref.kind.plural} "{ref.name}" already exists')
            judge(ref.kind, None, stored_form(ref.kind, sent))
            judge_status(ref.kind, sent)

        return await self._carry("check", ref.kind, ref.name, perform)

    async def delete(self, ref: Ref, uid: str) -> None:
        """See `KubeApi`."""
        return await self._carry(
            "delete", ref.kind, ref.name, lambda: self._server.delete(ref, uid)
        )

    async def event(self, regarding: Object, event: Event) -> None:
        """See `KubeApi`."""
        obj = _sent(event_object(regarding, event, self._server.now()))
        ref = ref_of(obj)

        def perform() -> None:
            if self._server.find(ref) is None:
                self._server.apply(ref, obj, FIELD_MANAGER)

        return await self._carry("event", EVENT, event.reason, perform)

    def _carry(self, verb: Verb, kind: Kind, name: str, perform: Callable[[], T]) -> Awaitable[T]:
        return self._line.carry(Call(verb, kind, name), perform)


def _sent(obj: Object) -> dict[str, Any]:
    """The object as it goes over the wire, at the time of the call."""
    found: dict[str, Any] = json.loads(json.dumps(obj))
    return found
