"""The training loop: parts, state, step, loop.

Differences to the published notebook that matter: float32 masters (pure bfloat16 weights drop most
updates at these learning rates), clipping that reaches the gradients, cached latents, frozen text
embeddings computed once, and no hidden state, so that an interrupted run goes on bit for bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dreambooth.models.conditioning import Conditioning
from dreambooth.models.family import ModelFamily, trained_networks
from dreambooth.sampling.devices import training_dtype
from dreambooth.training.checkpoint import Checkpoint, optimizer_moments, restore_moments
from dreambooth.training.distributed import World
from dreambooth.training.latents import LatentCache
from dreambooth.training.objective import prior_preserving_loss
from dreambooth.training.schedule import Pair, PairSchedule, draw


@dataclass(frozen=True)
class TrainerSettings:
    """What a step does; the manifest's `training` after defaults.

    Attributes:
        decay_steps: The rate falls to zero over this many steps, along a cosine; None keeps it
            constant.
        compute_dtype: Autocast type of forward and backward; float32 switches autocast off. None
            takes what is fastest where training runs.
        weights_dtype: Type of the trained weights. float32 always, but for the benchmark that
            shows why.
    """

    learning_rate: float
    prior_weight: float
    gradient_clip: float
    text_encoder: bool
    weight_decay: float = 1e-2
    decay_steps: int | None = None
    compute_dtype: torch.dtype | None = None
    weights_dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class TrainingData:
    """Cached pictures and the two prompts' token ids, `[1, L]` for each text encoder."""

    photos: LatentCache
    class_images: LatentCache
    photo_ids: tuple[Tensor, ...]
    class_ids: tuple[Tensor, ...]


class Trainer:
    """Fine-tunes one model on one worker's share of every step."""

    # Parts that are given.
    model: ModelFamily
    data: TrainingData
    schedule: PairSchedule
    settings: TrainerSettings
    world: World
    device: torch.device

    # Parts that are made here.
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.AdamW

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
    ) -> None:
        self.model = model
        self.data = data
        self.schedule = schedule
        self.settings = settings
        self.world = world
        self.device = device
        self.parameters = trainable_parameters(model, text_encoder=settings.text_encoder)
        for parameter in self.parameters.values():
            parameter.data = parameter.data.to(settings.weights_dtype)
        self._compute_dtype = settings.compute_dtype or training_dtype(device)
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.step = 0
        self.losses = []
        self._frozen_conditioning = None if settings.text_encoder else self._encode(1)

    def train_step(self) -> float:
        """One optimizer step.

        Returns:
            The loss over the whole batch of all workers.
        """
        pairs = self.world.share(self.schedule.step(self.step))
        loss = self._forward_backward(pairs)
        loss = self.world.average(loss, [p.grad for p in self.parameters.values()])
        torch.nn.utils.clip_grad_norm_(
            self.parameters.values(), self.settings.gradient_clip, foreach=True
        )
        self._set_learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.losses.append(float(loss))
        return self.losses[-1]

    def checkpoint(self, meta: dict[str, Any]) -> Checkpoint:
        """The state after the last step, and `meta` beside it."""
        names: dict[Tensor, str] = {p: name for name, p in self.parameters.items()}
        return Checkpoint(
            step=self.step,
            weights={name: p.data for name, p in self.parameters.items()},
            moments=optimizer_moments(self.optimizer, names),
            meta={"losses": self.losses, **meta},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from `checkpoint`."""
        self.load_weights(checkpoint.weights)
        names: dict[Tensor, str] = {p: name for name, p in self.parameters.items()}
        restore_moments(self.optimizer, names, checkpoint.moments)
        self.step = checkpoint.step
        self.losses = list(checkpoint.meta["losses"])

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Replaces the trained weights."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(weights[name])

    def _set_learning_rate(self) -> None:
        rate = learning_rate(self.settings, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _forward_backward(self, pairs: Sequence[Pair]) -> Tensor:
        latents, noise, timesteps = self._batch(pairs)
        noisy = self.model.add_noise(latents, noise, timesteps)
        target = self.model.target(latents, noise, timesteps)
        with torch.autocast(
            self.device.type,
            self._compute_dtype,
            enabled=self._compute_dtype != torch.float32,
        ):
            conditioning = self._conditioning(len(pairs))
            noisy = noisy.to(self.settings.weights_dtype)
            prediction = self.model.predict(noisy, timesteps, conditioning)
        loss = prior_preserving_loss(prediction, target, self.settings.prior_weight)
        loss.backward()
        return loss.detach()

    def _batch(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
        """Latents and noise `[2P, C, h, w]`, timesteps `[2P]`: photos first, then the class."""
        samples = [(self.data.photos, p.photo, p.photo_seed, p.photo_time) for p in pairs]
        samples += [
            (self.data.class_images, p.class_image, p.class_seed, p.class_time) for p in pairs
        ]
        latents, noise, times = [], [], []
        for cache, index, seed, time in samples:
            drawn = draw(seed, self.model.latent_shape)
            latents.append(cache.sample(index, drawn.posterior.to(self.device), seed))
            noise.append(drawn.noise)
            times.append(time)
        return (
            torch.stack(latents),
            torch.stack(noise).to(self.device),
            self.model.timesteps(torch.tensor(times, dtype=torch.float64, device=self.device)),
        )

    def _conditioning(self, pairs: int) -> Conditioning:
        if self._frozen_conditioning is None:
            return self._encode(pairs)
        return self._frozen_conditioning.repeat_interleave(pairs)

    def _encode(self, pairs: int) -> Conditioning:
        """`2P` prompts; each of the two different ones goes through the encoders once."""
        ids = tuple(
            torch.cat(both).to(self.device)
            for both in zip(self.data.photo_ids, self.data.class_ids, strict=True)
        )
        with torch.set_grad_enabled(self.settings.text_encoder):
            conditioning = self.model.encode_prompt(ids)
        return conditioning.repeat_interleave(pairs)


def learning_rate(settings: TrainerSettings, step: int) -> float:
    """The rate of optimizer step `step`, counted from 0."""
    if settings.decay_steps is None:
        return settings.learning_rate
    progress = min(step / settings.decay_steps, 1.0)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def trainable_parameters(model: ModelFamily, *, text_encoder: bool) -> dict[str, nn.Parameter]:
    """The parameters to train by name, after switching the others off.

    With adapters in place those are the adapters; without, all of the denoiser's and, with
    `text_encoder`, the text encoders'.
    """
    parts = trained_networks(model)
    has_adapters = any(getattr(part, "peft_config", None) for part in parts.values())
    if not has_adapters:
        model.denoiser.requires_grad_(True)
        for encoder in model.text_encoders:
            encoder.requires_grad_(text_encoder)
    return {
        f"{part}.{name}": parameter
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
