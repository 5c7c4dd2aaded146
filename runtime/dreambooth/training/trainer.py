"""The training loop: parts, state, step, loop.

Differences to the published notebook that matter: float32 masters (pure bfloat16 weights drop most
updates at these learning rates), clipping that reaches the gradients, cached latents, frozen text
embeddings computed once, and no hidden state, so that an interrupted run goes on bit for bit.
"""

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from dreambooth.models.family import ModelFamily
from dreambooth.training.checkpoint import Checkpoint
from dreambooth.training.distributed import World
from dreambooth.training.eager import EagerEngine
from dreambooth.training.engine import EngineFactory, EngineParts, StepEngine, StepLoss
from dreambooth.training.masters import MasterEngine
from dreambooth.training.schedule import PairSchedule
from dreambooth.training.settings import TrainerSettings, TrainingData, learning_rate

__all__ = ["Trainer", "TrainerSettings", "TrainingData", "choose_engine", "learning_rate"]


def choose_engine(parts: EngineParts) -> StepEngine:
    """The engine that is fastest on the device, unless the settings ask for other types."""
    settings = parts.settings
    compute = settings.compute_dtype or torch.bfloat16
    plain = compute == torch.float32 or settings.weights_dtype != torch.float32
    if parts.device.type == "cuda" and not plain:
        return MasterEngine(parts, working_dtype=compute)
    return EagerEngine(parts)


class Trainer:
    """Fine-tunes one model on one worker's share of every step."""

    # Parts that are given.
    schedule: PairSchedule
    settings: TrainerSettings
    world: World

    # Parts that are made here.
    engine: StepEngine

    # State; all of it is in the checkpoint.
    step: int
    losses: list[float]

    def __init__(
        self,
        model: ModelFamily,
        data: TrainingData,
        schedule: PairSchedule,
        settings: TrainerSettings,
        world: World,
        device: torch.device,
        engine: EngineFactory = choose_engine,
    ) -> None:
        self.model = model
        self.schedule = schedule
        self.settings = settings
        self.world = world
        pairs = schedule.batch_size // world.size
        self.engine = engine(EngineParts(model, data, settings, world, device, pairs))
        self.step = 0
        self.losses = []
        self._pending: deque[StepLoss] = deque()

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        return self.engine.parameters

    def advance(self) -> None:
        """One optimizer step, begun if not done: its loss may arrive some steps later.

        All workers see the loss of a step at the same one of their steps.
        """
        pairs = self.world.share(self.schedule.step(self.step))
        rate = learning_rate(self.settings, self.step)
        self._pending.append(self.engine.step(pairs, rate))
        self.step += 1
        while len(self._pending) > self.engine.lag:
            self._read_one()

    def settle(self) -> None:
        """Waits for the steps that have been begun: `losses` has one for each then."""
        while self._pending:
            self._read_one()

    def train_step(self) -> float:
        """One optimizer step, done.

        Returns:
            The loss over the whole batch of all workers.
        """
        self.advance()
        self.settle()
        return self.losses[-1]

    def collect(self) -> None:
        """Brings the state after the last step to the first worker; all of them call it."""
        self.settle()
        self.engine.collect()

    def checkpoint(self, meta: dict[str, Any]) -> Checkpoint:
        """The state after the last step, and `meta` beside it; the tensors themselves."""
        self.settle()
        return Checkpoint(
            step=self.step,
            weights=self.engine.weights(),
            moments=self.engine.moments(),
            meta={"losses": self.losses, **meta},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from `checkpoint`."""
        self._pending.clear()
        self.engine.load_weights(checkpoint.weights)
        self.engine.load_moments(checkpoint.moments)
        self.step = checkpoint.step
        self.losses = list(checkpoint.meta["losses"])

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Replaces the trained weights."""
        self.engine.load_weights(weights)

    def state_bytes(self) -> int:
        """Size of a checkpoint: weights and two moments, float32."""
        return 12 * sum(parameter.numel() for parameter in self.parameters.values())

    def finish(self) -> None:
        """Leaves the float32 weights in the model, ready to be saved; no step follows."""
        self.settle()
        self.engine.finish()

    def _read_one(self) -> None:
        self.losses.append(self._pending.popleft().read())
