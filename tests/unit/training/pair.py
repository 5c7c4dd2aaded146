"""What the processes of a pair do."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from dreambooth.errors import InfrastructureError
from dreambooth.training import worker
from dreambooth.training.checkpoint import CheckpointStore
from dreambooth.training.distributed import current_world
from tests.unit.training.side_by_side import join


def share(rank: int, store: Path) -> dict[str, Any]:
    """Brings together gradients [r, 2r] and [10r] of rank r, and a loss of r, r = 1 and 2."""
    join(rank, 2, store)
    world = current_world()
    r = rank + 1.0
    gradients = [torch.tensor([r, 2 * r]), None, torch.tensor([[10 * r]])]
    loss = world.average(torch.tensor(r), gradients)
    world.barrier()
    votes = [world.agree(rank == 1), world.agree(False)]
    told = {
        "rank": world.rank,
        "size": world.size,
        "share": world.share(list(range(6))),
        "loss": loss.item(),
        "votes": votes,
        "gradients": [g.tolist() for g in gradients if g is not None],
    }
    dist.destroy_process_group()
    return told


def train_on_a_full_disk(rank: int, store: Path, plan: worker.TrainingPlan) -> list[str]:
    """Trains; the first one's disk is full when it saves its first checkpoint. Returns errors."""
    setattr(CheckpointStore, "save", _full)  # noqa: B010
    join(rank, 2, store)
    rows: list[dict[str, Any]] = []

    def push(row: dict[str, Any]) -> Any:
        rows.append(row)
        return SimpleNamespace(future=lambda: SimpleNamespace(result=lambda timeout: None))

    worker.train_worker({"plan": plan, "relay": SimpleNamespace(push=SimpleNamespace(remote=push))})
    dist.destroy_process_group()
    return [str(row["error"]) for row in rows if "error" in row]


def _full(*_: Any) -> None:
    raise InfrastructureError("the disk is full")
