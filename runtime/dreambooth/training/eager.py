"""Training steps operation by operation, in float32 or under autocast: the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dreambooth.sampling.devices import training_dtype
from dreambooth.training.checkpoint import optimizer_moments, restore_moments
from dreambooth.training.engine import EngineParts, Prompts, StepLoss, trainable_parameters
from dreambooth.training.objective import prior_preserving_loss
from dreambooth.training.schedule import Pair, draw, samples_of


@dataclass(frozen=True)
class KnownLoss:
    """A loss that has been computed."""

    value: float

    def read(self) -> float:
        """It."""
        return self.value


class EagerEngine:
    """Plain torch: one operation after the other, the host waits for each step's loss."""

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.AdamW
    lag = 0

    def __init__(self, parts: EngineParts) -> None:
        self._parts = parts
        self._data = parts.data.on(parts.device)
        settings = parts.settings
        self.parameters = trainable_parameters(parts.model, text_encoder=settings.text_encoder)
        for parameter in self.parameters.values():
            parameter.data = parameter.data.to(settings.weights_dtype)
        self._compute_dtype = settings.compute_dtype or training_dtype(parts.device)
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._prompts = Prompts(parts)

    def step(self, pairs: Sequence[Pair], rate: float) -> StepLoss:
        """One optimizer step; its loss is known at once."""
        loss = self._forward_backward(pairs)
        gradients = [parameter.grad for parameter in self.parameters.values()]
        loss = self._parts.world.average(loss, gradients)
        torch.nn.utils.clip_grad_norm_(
            self.parameters.values(), self._parts.settings.gradient_clip, foreach=True
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return KnownLoss(float(loss))

    def collect(self) -> None:
        """Every worker holds all."""

    def weights(self) -> dict[str, Tensor]:
        """The parameters' values."""
        return {name: parameter.data for name, parameter in self.parameters.items()}

    def moments(self) -> dict[str, Tensor]:
        """AdamW's state; a parameter that never had a gradient has none."""
        return optimizer_moments(self.optimizer, self._names())

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Replaces the trained weights."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(weights[name])

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        """Replaces AdamW's state."""
        restore_moments(self.optimizer, self._names(), moments)

    def describe(self) -> dict[str, Any]:
        """The types it computes with."""
        weights = str(self._parts.settings.weights_dtype).removeprefix("torch.")
        compute = str(self._compute_dtype).removeprefix("torch.")
        return {"launch": "eager", "weights": weights, "compute": compute}

    def finish(self) -> None:
        """The weights are in the model already."""
        self.optimizer.zero_grad(set_to_none=True)

    def _names(self) -> dict[Tensor, str]:
        return {parameter: name for name, parameter in self.parameters.items()}

    def _forward_backward(self, pairs: Sequence[Pair]) -> Tensor:
        model, settings = self._parts.model, self._parts.settings
        latents, noise, timesteps = self._batch(pairs)
        noisy = model.add_noise(latents, noise, timesteps)
        target = model.target(latents, noise, timesteps)
        with torch.autocast(
            self._parts.device.type,
            self._compute_dtype,
            enabled=self._compute_dtype != torch.float32,
        ):
            conditioning = self._prompts.conditioning(len(pairs))
            noisy = noisy.to(settings.weights_dtype)
            prediction = model.predict(noisy, timesteps, conditioning)
        loss = prior_preserving_loss(prediction, target, settings.prior_weight)
        loss.backward()
        return loss.detach()

    def _batch(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
        """Latents and noise `[2P, C, h, w]`, timesteps `[2P]`: photos first, then the class."""
        model, data, device = self._parts.model, self._data, self._parts.device
        latents, noise, times = [], [], []
        for sample in samples_of(pairs):
            cache = data.class_images if sample.of_class else data.photos
            drawn = draw(sample.seed, model.latent_shape)
            latents.append(cache.sample(sample.picture, drawn.posterior.to(device), sample.seed))
            noise.append(drawn.noise)
            times.append(sample.time)
        return (
            torch.stack(latents),
            torch.stack(noise).to(device),
            model.timesteps(torch.tensor(times, dtype=torch.float64, device=device)),
        )
