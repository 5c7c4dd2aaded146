"""Sharing a step between workers."""

import json
import subprocess
import sys
from pathlib import Path

from dreambooth.training.distributed import Alone, current_world

# Two of these bring together gradients [r, 2r] and [10r] of rank r, and a loss of r, r = 1 and 2.
WORKER = """
import json, sys
import torch, torch.distributed as dist
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
from dreambooth.training.distributed import current_world
world = current_world()
r = rank + 1.0
gradients = [torch.tensor([r, 2 * r]), None, torch.tensor([[10 * r]])]
loss = world.average(torch.tensor(r), gradients)
world.barrier()
votes = [world.agree(rank == 1), world.agree(False)]
print(json.dumps({
    "rank": world.rank, "size": world.size, "share": world.share(list(range(6))),
    "loss": loss.item(), "votes": votes,
    "gradients": [g.tolist() for g in gradients if g is not None],
}))
dist.destroy_process_group()
"""


def test_two_workers_share_the_items_and_average_gradients_and_loss(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    told = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    assert [each["rank"] for each in told] == [0, 1]
    assert [each["share"] for each in told] == [[0, 1, 2], [3, 4, 5]]
    for each in told:
        assert each["size"] == 2
        assert each["loss"] == 1.5
        assert each["votes"] == [True, False]
        assert each["gradients"] == [[1.5, 3.0], [[15.0]]]


def test_without_a_process_group_a_worker_is_alone_and_has_everything() -> None:
    world = current_world()
    assert isinstance(world, Alone)
    assert (world.rank, world.size) == (0, 1)
    assert world.share([1, 2, 3]) == [1, 2, 3]
    assert world.agree(True) and not world.agree(False)
