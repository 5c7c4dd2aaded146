"""A job's machines: its groups of workers on the administrator's pools, and what they cost."""

from dataclasses import dataclass

from dreambooth_operator.config import Pool

# Custom resources by which the runtime tells machines that only draw from those that train.
DRAWING, TRAINING = "drawing", "training"


@dataclass(frozen=True)
class WorkerGroup:
    """Equal workers on one pool.

    Attributes:
        name: Of the group in the Ray cluster.
        offers: Ray resource that marks what the workers are for, or None if they do everything.
    """

    name: str
    pool: Pool
    workers: int
    offers: str | None = None

    @property
    def gpus(self) -> int:
        """GPUs that the group holds."""
        return self.pool.gpus * self.workers


@dataclass(frozen=True)
class Cluster:
    """All that one try needs.

    Attributes:
        claim: The claim of the workspace.
        owned: The claim is made for the job, with this size and storage class.
    """

    groups: tuple[WorkerGroup, ...]
    claim: str
    owned: bool
    size: str | None = None
    storage_class: str | None = None

    @property
    def gpus(self) -> int:
        """GPUs that the cluster holds while it is up."""
        return sum(group.gpus for group in self.groups)

    @property
    def workers(self) -> int:
        """Workers of all groups."""
        return sum(group.workers for group in self.groups)

    def price(self) -> tuple[float, str] | None:
        """What a GPU-hour costs on average, and the currency; None if a pool's is unknown."""
        priced = [group for group in self.groups if group.gpus]
        prices = [group.pool.price for group in priced]
        currencies = {group.pool.currency for group in priced}
        if not priced or None in prices or len(currencies) != 1:
            return None
        total = sum((group.pool.price or 0.0) * group.gpus for group in priced)
        return total / self.gpus, currencies.pop()
