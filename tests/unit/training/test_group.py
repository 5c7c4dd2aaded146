"""Two workers of one training, of which one fails."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.unit.training.conftest import make_plan, pictures

# Worker `rank` of two; the first one's disk is full when it saves its first checkpoint.
WORKER = """
import json, sys
from types import SimpleNamespace
import torch.distributed as dist
from dreambooth.errors import InfrastructureError
from dreambooth.sampling.settings import SamplingSettings
from dreambooth.training import worker
from dreambooth.training.checkpoint import CheckpointStore
from dreambooth.training.trainer import TrainerSettings

rank, store, plan = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
plan["settings"] = TrainerSettings(**plan["settings"])
plan["sampling"] = SamplingSettings(**plan["sampling"])

def full(self, checkpoint):
    raise InfrastructureError("the disk is full")

CheckpointStore.save = full
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
rows = []

def push(row):
    rows.append(row)
    return SimpleNamespace(future=lambda: SimpleNamespace(result=lambda timeout: None))

relay = SimpleNamespace(push=SimpleNamespace(remote=push))
worker.train_worker({"plan": worker.TrainingPlan(**plan), "relay": relay})
print(json.dumps([str(row["error"]) for row in rows if "error" in row]))
dist.destroy_process_group()
"""


@pytest.mark.timeout(240)
def test_when_the_first_worker_fails_the_other_does_not_wait_for_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    plan = asdict(
        make_plan(tmp_path, tiny_model, pictures(tmp_path / "p", 2), pictures(tmp_path / "c", 2))
    )
    # Types are no JSON; the defaults will do.
    del plan["settings"]["compute_dtype"], plan["settings"]["weights_dtype"]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "store"), json.dumps(plan)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    told = [json.loads(worker.communicate(timeout=200)[0]) for worker in workers]
    assert told == [["the disk is full."], []]
