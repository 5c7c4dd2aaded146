"""The processes that draw: hired once, kept from stage to stage, warm when they are needed.

A process that draws spends seconds on starting and importing before it can load a model. It keeps
that through a job: the next stage gives it another model. Where others need its place it leaves,
and a new one can be hired ahead, which does all that it can without the GPU.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from dreambooth.pipeline.placement import Placement

# Pictures of this many parts of a list wait to be written, then drawing waits.
PARTS_AHEAD = 8


class Artist:
    """One process that draws, as the driver and the tasks that ask it hold it."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def hired(cls, options: dict[str, Any]) -> "Artist":
        """A new process; it starts while the caller goes on."""
        import ray

        from dreambooth.sampling.drawing import PictureActor

        # A lost process ends the work, and `fill` hires the next: Ray would try for ever.
        make = ray.remote(PictureActor).options(max_restarts=0, **options)
        return cls(make.remote(time.time()))

    def draw(self, source: Any, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What the process draws of `batch` with the model `source`, part by part."""
        import ray

        method = self._actor.draw.options(
            num_returns="streaming", _generator_backpressure_num_objects=PARTS_AHEAD
        )
        for part in method.remote(source, batch):
            yield ray.get(part)

    def rest(self) -> None:
        """Lets it forget its model."""
        self._actor.rest.remote()

    def leave(self) -> None:
        """Ends the process."""
        import ray

        with contextlib.suppress(Exception):
            ray.kill(self._actor)


class Troupe:
    """The processes that draw for one driver."""

    def __init__(self) -> None:
        # They are hired ahead by one thread and asked to draw by another.
        self._lock = threading.Lock()
        self._artists: list[Artist] = []
        self._options: dict[str, Any] = {}
        self._session: object = None

    def hire(self, where: Placement, count: int) -> list[Artist]:
        """At most `count`, as many as there is room for; who is there comes first."""
        session, wanted = _session(), min(where.drawers, count)
        with self._lock:
            if session != self._session:
                # They ended with the Ray they lived in.
                self._artists = []
            if self._options != where.drawer:
                self._dismiss()
            self._session, self._options = session, dict(where.drawer)
            while len(self._artists) < wanted:
                self._artists.append(Artist.hired(self._options))
            return self._artists[:wanted]

    def rest(self) -> None:
        """Lets all forget their models, whose memory others may need."""
        for artist in self._artists:
            with contextlib.suppress(Exception):
                artist.rest()

    def dismiss(self) -> None:
        """Ends them all."""
        with self._lock:
            self._dismiss()

    def _dismiss(self) -> None:
        artists, self._artists = self._artists, []
        for artist in artists:
            artist.leave()


def _session() -> object:
    """Tells one Ray from the next in the same process."""
    import ray

    return ray.get_runtime_context().get_job_id() if ray.is_initialized() else None


troupe = Troupe()
