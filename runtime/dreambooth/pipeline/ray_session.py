"""Starting Ray on this machine, or joining the cluster that is there."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator

from dreambooth.errors import InfrastructureError
from dreambooth.processors import usable_cpus
from dreambooth.spans import Activity, span

OBJECT_STORE_BYTES = 512 * 1024 * 1024


def joins_cluster() -> bool:
    """Whether there is a cluster to join: `RAY_ADDRESS` names it."""
    return bool(os.environ.get("RAY_ADDRESS"))


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """Ray for the time of the body: `RAY_ADDRESS` names a cluster, else one is started here.

    A local Ray counts two CPUs more than there are. A model actor computes with all cores
    whatever it reserves; the surplus lets the light tasks that read and write beside it start.

    Raises:
        InfrastructureError: If Ray cannot be started or reached.
    """
    with span(Activity.IMPORTS):
        import ray

    # Of threads and signals, which it says before it knows how loud it may be.
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, object] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not joins_cluster():
        # Machines of one's own are not taken back; it would be one more process.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        options |= {
            "address": "local",
            "num_cpus": usable_cpus() + 2,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    on_stop = signal.getsignal(signal.SIGTERM)
    try:
        with span(Activity.RAY_START):
            ray.init(**options)
    except Exception as error:
        raise InfrastructureError(
            f"Ray did not start: {error}",
            remedy="Check free memory, /tmp and RAY_ADDRESS, and run again.",
            reason="RayUnavailable",
        ) from error
    # Ray has a handler of its own by now, which ends the process on the spot. Only the main thread
    # may have one, and one that isn't Python's cannot be put back.
    with contextlib.suppress(ValueError, TypeError):
        signal.signal(signal.SIGTERM, on_stop)
    try:
        yield
    finally:
        with span(Activity.RAY_STOP):
            ray.shutdown()
