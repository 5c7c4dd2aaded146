"""Ray for one run: started beside other work, ready when a stage needs it."""

import threading
from contextlib import AbstractContextManager, ExitStack

from dreambooth.pipeline.ray_session import ray_session
from dreambooth.pipeline.usage import GpuMeter
from dreambooth.spans import Activity, span


class LazyRay:
    """Starts Ray when the first stage needs it: a run that finds all done never does.

    Starting it is mostly waiting for processes of its own, so that a run that will need it begins
    early and does something else meanwhile.
    """

    def __init__(self, resources: ExitStack, meter: GpuMeter) -> None:
        self._resources, self._meter = resources, meter
        self._thread: threading.Thread | None = None
        self._session: AbstractContextManager[None] | None = None
        self._error: BaseException | None = None
        self._ready = False

    def begin(self) -> None:
        """Begins to start Ray, or to join the cluster, in the background."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._start, name="ray-start", daemon=True)
            self._resources.callback(self._stop)
            self._thread.start()

    def ensure(self) -> None:
        """Waits until Ray is there.

        Raises:
            InfrastructureError: If it cannot be started or reached.
        """
        if self._ready:
            return
        self.begin()
        with span(Activity.IMPORTS):
            # Seconds long, and needed by whoever needs Ray.
            import ray
            import ray.data
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        self._ready = True
        self._meter.holds(ray.cluster_resources().get("GPU", 0.0))

    def _start(self) -> None:
        session = ray_session()
        try:
            session.__enter__()
            self._session = session
        except BaseException as error:
            self._error = error

    def _stop(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._session is not None:
            self._session.__exit__(None, None, None)
