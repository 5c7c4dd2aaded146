"""Where a training worker begins.

Ray Train's own two processes import this module as well, one after the other, before there is a
worker. So nothing is imported here that only a worker needs.
"""

from typing import Any

# The time at which this is imported is when the process has started.
from dreambooth import spans  # noqa: F401


def train_worker(config: dict[str, Any]) -> None:
    """See `dreambooth.training.worker.train_worker`, which a worker imports here."""
    from dreambooth.training import worker

    worker.train_worker(config)
