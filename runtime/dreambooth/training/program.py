"""A training step as work for the device: static buffers in, gradients, new weights and loss out.

Nothing here waits for the device or depends on values there, so that the same code can run
operation by operation or be captured in a CUDA graph.
"""

import gc
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from dreambooth.kernels.adamw import MasterOptimizer
from dreambooth.training.engine import EngineParts, Prompts
from dreambooth.training.inputs import (
    DeviceLatents,
    HostLatents,
    InputStream,
    Latents,
    StepInputs,
)
from dreambooth.training.memory import Activations, MemoryPlan, Place
from dreambooth.training.objective import prior_preserving_loss
from dreambooth.training.reduction import BucketReduction, NoReduction, Reduction


class StepProgram:
    """Forward, backward, the workers' sums and the update, under one memory plan at a time."""

    # Parts that are given.
    optimizer: MasterOptimizer
    reduction: NoReduction | BucketReduction

    # What `use` sets up.
    plan: MemoryPlan
    stream: InputStream
    latents: Latents

    # What a step leaves.
    loss: Tensor

    def __init__(
        self,
        parts: EngineParts,
        parameters: list[nn.Parameter],
        prompts: Prompts,
        optimizer: MasterOptimizer,
        reduction: NoReduction | BucketReduction,
    ) -> None:
        self.parts = parts
        self.parameters = parameters
        self.optimizer = optimizer
        self.reduction = reduction
        self.loss = torch.zeros((), device=parts.device)
        self._prompts = prompts
        self._dtype = parameters[0].dtype

    def use(self, plan: MemoryPlan, ahead: int) -> None:
        """Makes the buffers for `plan`; the host may be `ahead` steps ahead of the device."""
        self.plan = plan
        parts = self.parts
        denoiser: Any = parts.model.denoiser
        if plan.activations is Activations.RECOMPUTED:
            denoiser.enable_gradient_checkpointing(_recompute)
        elif denoiser.is_gradient_checkpointing:
            denoiser.disable_gradient_checkpointing()
        inputs = StepInputs.zeros(plan.batches, plan.pairs, parts.model.latent_shape, parts.device)
        if plan.latents is Place.DEVICE:
            self.latents = DeviceLatents(parts.data, parts.device)
        else:
            self.latents = HostLatents(parts.data)
        self.stream = InputStream(inputs, self.latents, ahead)

    def whole(self) -> None:
        """A step."""
        self.backward(self.reduction)
        self.update()

    def update(self) -> None:
        """New masters, moments and working weights from the gradients."""
        self.optimizer.learning_rate.copy_(self.stream.inputs.rate)
        self.optimizer.step(written=self.reduction.written)
        self.reduction.all_written()

    def backward(self, reduction: Reduction) -> None:
        """Gradients and loss of all micro-batches."""
        self.drop_gradients()
        share = 1.0 / (self.plan.batches * self.parts.world.size)
        self.loss.zero_()
        for batch in range(self.plan.batches):
            if batch == self.plan.batches - 1:
                reduction.begin()
            loss = self._micro_batch(batch) * share
            loss.backward()
            self.loss += loss.detach()
        reduction.finish(self.loss)

    def drop_gradients(self) -> None:
        """So that the next backward pass hands over its own instead of adding to them."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def forget_steps(self) -> None:
        """Moments as at the start: all that steps at a rate of zero have changed."""
        for moments in (self.optimizer.exp_avg, self.optimizer.exp_avg_sq):
            torch._foreach_zero_(moments)
        self.optimizer.set_step(0)

    def release(self) -> None:
        """Gives memory back that only the last attempt needed."""
        self.drop_gradients()
        gc.collect()
        if self.parts.device.type == "cuda":
            torch.cuda.empty_cache()

    def _micro_batch(self, batch: int) -> Tensor:
        model, inputs = self.parts.model, self.stream.inputs
        noise = inputs.noise[batch]
        latents = self.latents.latents(inputs, batch)
        timesteps = model.timesteps(inputs.times[batch])
        noisy = model.add_noise(latents, noise, timesteps)
        noisy = noisy.to(self._dtype).contiguous(memory_format=torch.channels_last)
        conditioning = self._prompts.conditioning(self.plan.pairs).to(dtype=self._dtype)
        prediction = model.predict(noisy, timesteps, conditioning)
        target = model.target(latents, noise, timesteps)
        return prior_preserving_loss(prediction, target, self.parts.settings.prior_weight)


def _recompute(module: nn.Module, *inputs: Any) -> Any:
    """Gradient checkpointing that can be captured: nothing here draws random numbers."""
    return recompute(module, *inputs, use_reentrant=False, preserve_rng_state=False)
