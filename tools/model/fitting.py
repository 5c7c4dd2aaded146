"""The training loop that both parts of the model share."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tools.model.errors import RecipeError
from tools.model.pace import Pace

LOG = logging.getLogger(__name__)

# The clock starts after these: the first steps compile, choose kernels and fill caches.
_WARM_UP_STEPS = 3
_REPORT_EVERY = 100
_SAVE_EVERY_SECONDS = 240.0
# Waiting for the device now and then keeps the clock honest.
_SYNC_EVERY = 10


@dataclass(frozen=True)
class Task:
    """What is learned and how.

    Attributes:
        name: For messages.
        networks: What is trained.
        loss: The loss of a step, with the chance it may use.
        identity: What the result depends on; a checkpoint of anything else is refused.
        batch: Samples a step.
        rate: Highest learning rate.
        rise: Steps until it is reached.
        least: Share of it that is left at the end.
        decay: Weight decay.
        memory: Upper bound of the moving average's decay; 0 keeps the last weights.
    """

    name: str
    networks: Mapping[str, nn.Module]
    loss: Callable[[torch.Generator], Tensor]
    identity: str
    batch: int
    rate: float
    rise: int
    least: float
    decay: float
    memory: float


class Fit:
    """One training, from its checkpoint on."""

    def __init__(self, task: Task, device: torch.device, checkpoint: Path, seed: int) -> None:
        self._task = task
        self._device = device
        self._checkpoint = checkpoint
        self._seed = seed
        self._weights = [p for net in task.networks.values() for p in net.parameters()]
        self._optimizer = torch.optim.AdamW(
            self._weights, lr=task.rate, betas=(0.9, 0.99), weight_decay=task.decay, fused=True
        )
        self._average = [weight.detach().clone() for weight in self._weights]
        self.step = 0
        self.seconds = 0.0
        if checkpoint.exists():
            self._load()

    def run(self, pace: Pace, pause: Pace) -> bool:
        """Trains until either has passed; whether the whole is done.

        Args:
            pace: The whole training: the learning rate follows it.
            pause: What this call may take of it; a later call goes on where it ended.
        """
        first, since, before = self.step, time.monotonic(), self.seconds
        saved, losses, reported = 0.0, torch.zeros((), device=self._device), self.step
        while (share := pace.share(self.step, self.seconds)) < 1:
            spent = self.seconds - before
            if pause.share(self.step - first, spent) >= 1:
                break
            if spent - saved > _SAVE_EVERY_SECONDS:
                self._save()
                saved = spent
            losses += self._train_step(share)
            if self.step - first <= _WARM_UP_STEPS:
                losses.item()
                since = time.monotonic()
                continue
            if self.step % _SYNC_EVERY == 0:
                losses.item()
            self.seconds = before + time.monotonic() - since
            if self.step % _REPORT_EVERY == 0:
                timed = self.step - first - _WARM_UP_STEPS
                self._report(
                    losses.item() / (self.step - reported), timed / (self.seconds - before)
                )
                losses, reported = torch.zeros_like(losses), self.step
        self._save()
        LOG.info("%s: step %d, %.1f s of training", self._task.name, self.step, self.seconds)
        return pace.share(self.step, self.seconds) >= 1

    @torch.no_grad()
    def use_average(self) -> None:
        """Puts the moving average into the networks."""
        for weight, average in zip(self._weights, self._average, strict=True):
            weight.copy_(average)

    def _train_step(self, share: float) -> Tensor:
        task, decay = self._task, self._average_decay()
        risen = min(1.0, (self.step + 1) / task.rise)
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, share))
        for group in self._optimizer.param_groups:
            group["lr"] = task.rate * risen * max(task.least, cosine)
        # Its own chance for each step: going on from a checkpoint needs no more than the number.
        chance = torch.Generator(self._device)
        chance.manual_seed(self._seed * 1_000_000_007 + self.step)
        loss = task.loss(chance)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimizer.step()
        torch._foreach_lerp_(self._average, [w.detach() for w in self._weights], 1 - decay)
        self.step += 1
        return loss.detach()

    def _average_decay(self) -> float:
        return min(self._task.memory, (1 + self.step) / (10 + self.step))

    def _report(self, loss: float, steps_a_second: float) -> None:
        if not math.isfinite(loss):
            raise RecipeError(
                f"{self._task.name}: the loss is {loss} at step {self.step}. "
                f"Delete {self._checkpoint} and train with another --seed."
            )
        rate = self._task.batch * steps_a_second
        LOG.info("%s: step %d, loss %.4f, %.0f/s", self._task.name, self.step, loss, rate)

    def _save(self) -> None:
        state = {
            "identity": self._task.identity,
            "step": self.step,
            "seconds": self.seconds,
            "networks": {name: net.state_dict() for name, net in self._task.networks.items()},
            "optimizer": self._optimizer.state_dict(),
            "average": self._average,
        }
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._checkpoint.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self._checkpoint)

    def _load(self) -> None:
        state: dict[str, Any] = torch.load(
            self._checkpoint, map_location=self._device, weights_only=True
        )
        if state["identity"] != self._task.identity:
            raise RecipeError(
                f"{self._checkpoint} is of another training: {state['identity']}, "
                f"not {self._task.identity}. Delete it, or use another folder."
            )
        for name, network in self._task.networks.items():
            network.load_state_dict(state["networks"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average = state["average"]
        self.step, self.seconds = state["step"], state["seconds"]
        LOG.info("%s: goes on at step %d", self._task.name, self.step)
