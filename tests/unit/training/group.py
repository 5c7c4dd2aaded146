"""One worker of a group, for a process of its own.

Trains a tiny model on pictures in folders and returns losses, weights and what it says of itself.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dreambooth.models.stable_diffusion import StableDiffusion
from dreambooth.training import launching, masters, reduction
from dreambooth.training.capture import Launch
from dreambooth.training.checkpoint import CheckpointStore
from dreambooth.training.distributed import current_world
from dreambooth.training.eager import EagerEngine
from dreambooth.training.engine import EngineParts, StepEngine
from dreambooth.training.latents import encode_pictures
from dreambooth.training.masters import MasterEngine
from dreambooth.training.schedule import PairSchedule
from dreambooth.training.trainer import Trainer, TrainerSettings, TrainingData
from tests.unit.training.side_by_side import join

CPU = torch.device("cpu")


class _Replayed:
    """Stands for a CUDA graph of `work`."""

    def __init__(self, work: Any) -> None:
        self.replay = work


def _engine(given: dict[str, Any]) -> Any:
    if given["engine"] == "eager":
        return EagerEngine

    def make(parts: EngineParts) -> StepEngine:
        setattr(launching, "capture", _Replayed)  # noqa: B010
        return MasterEngine(
            parts,
            working_dtype=getattr(torch, given["engine"]),
            launches=[Launch[name] for name in given.get("launches", ["EAGER"])],
        )

    return make


def train(rank: int, given: dict[str, Any]) -> dict[str, Any]:
    """Trains as told."""
    torch.set_num_threads(1)
    if given.get("sharded"):
        setattr(masters, "is_worth_sharding", lambda *_: True)  # noqa: B010
    reduction.BUCKET_BYTES = given.get("bucket_bytes", reduction.BUCKET_BYTES)
    if given["size"] > 1:
        join(rank, given["size"], Path(given["store"]))
    model = StableDiffusion.load(Path(given["model"])).to(CPU)
    data = TrainingData(
        photos=encode_pictures(model, sorted(Path(given["photos"]).iterdir()), 0, CPU),
        class_images=encode_pictures(model, sorted(Path(given["class"]).iterdir()), 0, CPU),
        photo_ids=model.tokenize(["photo of a sks dog"]),
        class_ids=model.tokenize(["photo of a dog"]),
    )
    if given.get("lora"):
        model.add_lora(4, 4, text_encoder=True, seed=0)
    settings = TrainerSettings(1e-3, 1.0, 1.0, text_encoder=True, compute_dtype=torch.float32)
    schedule = PairSchedule(0, len(data.photos), len(data.class_images), given["batch"])
    trainer = Trainer(model, data, schedule, settings, current_world(), CPU, _engine(given))
    if given.get("from"):
        found = CheckpointStore(Path(given["from"]), "key").latest()
        assert found is not None
        trainer.restore(found)
    losses = [trainer.train_step() for _ in range(given["steps"])]
    trainer.collect()
    # Of a state that is shared out only the first worker has all; the others compute with it.
    whole = rank == 0 or not given.get("sharded")
    held = trainer.engine.weights() if whole else trainer.parameters
    weights = [weight.detach().double().sum().item() for weight in held.values()]
    if rank == 0 and given.get("to"):
        CheckpointStore(Path(given["to"]), "key").save(trainer.checkpoint({}))
    engine = trainer.engine.describe()
    trainer.finish()
    if given["size"] > 1:
        dist.barrier()
        dist.destroy_process_group()
    return {"losses": losses, "weights": weights, "engine": engine}
