"""Ray for one run: started beside other work, ready when a stage needs it."""

import contextlib
import threading
from collections.abc import Callable
from contextlib import ExitStack

from dreambooth.pipeline.ray_session import ray_session
from dreambooth.pipeline.usage import GpuMeter
from dreambooth.spans import Activity, span


def import_ahead() -> None:
    """Imports what hangs together with what the caller imports while Ray starts.

    Where two threads import modules that import one another, Python lets one of them go on with a
    module that is half made, rather than wait for ever.
    """
    with span(Activity.IMPORTS):
        import ray.data  # noqa: F401

        import dreambooth.sampling.drawing
        import dreambooth.training.group  # noqa: F401


class LazyRay:
    """Starts Ray when the first stage needs it: a run that finds all done never does.

    Starting it is mostly waiting for processes of its own, so that a run that will need it begins
    early and does something else meanwhile.
    """

    def __init__(self, resources: ExitStack, meter: GpuMeter) -> None:
        """When `resources` are given back, Ray is stopped."""
        self._resources, self._meter = resources, meter
        self._then: Callable[[], object] = lambda: None
        # It lives as long as Ray does: the kernel ends Ray's processes with the thread that
        # started them.
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._begun, self._counted = False, False
        self._settled, self._over = threading.Event(), threading.Event()
        self._error: BaseException | None = None

    def begin(self, then: Callable[[], object] = lambda: None) -> None:
        """Begins to start Ray, or to join the cluster, in the background.

        `then` is done there too, when Ray is ready; it only saves time, and may fail.
        """
        if not self._begun:
            self._begun, self._then = True, then
            import_ahead()
            self._resources.callback(self._stop)
            self._thread.start()

    def ensure(self) -> None:
        """Waits until Ray is there.

        Raises:
            InfrastructureError: If it cannot be started or reached.
        """
        if self._counted:
            return
        self.begin()
        self._settled.wait()
        if self._error is not None:
            raise self._error
        self._counted = True
        import ray

        self._meter.holds(ray.cluster_resources().get("GPU", 0.0))

    def _run(self) -> None:
        try:
            with ray_session():
                self._settled.set()
                if not self._over.is_set():
                    with contextlib.suppress(Exception):
                        self._then()
                self._over.wait()
        except BaseException as error:
            self._error = error
        finally:
            self._settled.set()

    def _stop(self) -> None:
        self._over.set()
        self._thread.join()
