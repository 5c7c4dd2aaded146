"""The planner's answer: what to apply, delete and tell, and when to look again."""

from dataclasses import dataclass

from dreambooth_operator.kube.kinds import Object, Ref
from dreambooth_operator.kube.port import Event


@dataclass(frozen=True)
class Deletion:
    """One very object to delete."""

    ref: Ref
    uid: str


@dataclass(frozen=True)
class Plan:
    """What to do, in this order.

    Attributes:
        apply: Objects to apply, first things first.
        delete: Objects to delete.
        status: The whole status to write, or None if the one that is there is right.
        events: What to tell once status is written.
        requeue_after: Seconds until the job is to be looked at again, whatever happens meanwhile.
    """

    apply: tuple[Object, ...] = ()
    delete: tuple[Deletion, ...] = ()
    status: Object | None = None
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing is to be written."""
        return not (self.apply or self.delete or self.events) and self.status is None
