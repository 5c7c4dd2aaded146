"""The engine of GPUs: low-precision weights, float32 masters, one CUDA graph a step.

Forward and backward compute with bfloat16 weights, without autocast's casts. The optimizer keeps
float32 masters and moments, reads the bfloat16 gradients where autograd left them, clips, and
writes masters, moments and weights in one pass. Inputs come through static buffers, losses are
read some steps later. With LoRA the frozen weights are bfloat16 alone, without masters.

Everything but the capture itself runs the same on a CPU, which is how most of it is tested.
"""

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from dreambooth.errors import UserError
from dreambooth.kernels.adamw import make_adamw
from dreambooth.kernels.fusing import fuse
from dreambooth.models.family import trained_networks
from dreambooth.training.capture import (
    Launch,
    capture,
    first_line,
    is_out_of_memory,
    warming_up,
)
from dreambooth.training.engine import EngineParts, Prompts, StepLoss, trainable_parameters
from dreambooth.training.inputs import (
    DeviceLatents,
    HostLatents,
    InputStream,
    LossStream,
    StepInputs,
)
from dreambooth.training.memory import (
    Activations,
    MemoryPlan,
    Place,
    latents_place,
    memory_plans,
    state_bytes,
)
from dreambooth.training.objective import prior_preserving_loss
from dreambooth.training.reduction import BucketReduction, NoReduction, Reduction, reduction_for
from dreambooth.training.schedule import Pair

_logger = logging.getLogger(__name__)

# Steps that the host may be ahead: enough to prepare inputs and read losses meanwhile.
LAG = 4
# Whole steps before a capture: kernels are compiled, algorithms chosen, workspaces made.
WARM_UP_STEPS = 2


class MasterEngine:
    """Steps with working weights of `working_dtype` beside float32 masters."""

    # Parts that are given.
    parameters: dict[str, nn.Parameter]
    lag: int

    # Chosen by what fits and what works.
    plan: MemoryPlan
    launch: Launch

    def __init__(
        self,
        parts: EngineParts,
        *,
        working_dtype: torch.dtype = torch.bfloat16,
        launches: Sequence[Launch] | None = None,
    ) -> None:
        """Ready to step: all compiling and capturing is done here.

        Args:
            parts: What to train.
            working_dtype: Of the weights that forward and backward compute with.
            launches: Ways to launch a step, the first that works is taken; by default all that
                the device and the number of workers allow.

        Raises:
            UserError: If the training does not fit into the device's memory in any way.
        """
        self._parts = parts
        self._dtype = working_dtype
        self._gpu = parts.device.type == "cuda"
        self.lag = LAG if self._gpu else 0
        self._launches = list(_default_launches(parts) if launches is None else launches)
        self._refused: dict[str, str] = {}
        settings = parts.settings
        self.parameters = trainable_parameters(parts.model, text_encoder=settings.text_encoder)
        self._trained = list(self.parameters.values())
        self._prompts = Prompts(parts)
        with self._memory_needed():
            self._optimizer = self._make_optimizer()
        self._reduction = reduction_for(parts.world, self._trained)
        self._loss = torch.zeros((), device=parts.device)
        self._losses = LossStream(parts.device, self.lag)
        data = parts.data
        cached = [t for c in (data.photos, data.class_images) for t in (c.mean, c.std)]
        self._plans = iter(memory_plans(parts.pairs, latents_place(parts.device, cached)))
        self._run = self._prepare()

    def step(self, pairs: Sequence[Pair], rate: float) -> StepLoss:
        """Queues one optimizer step; returns before it has been computed."""
        self._stream.send(pairs, rate)
        try:
            self._run()
        except torch.OutOfMemoryError:
            if self._parts.world.size > 1:
                # The others wait for this one's gradients.
                raise
            short = True
        else:
            short = False
        if short:
            self._make_do(pairs, rate)
        return self._losses.send(self._loss)

    def weights(self) -> dict[str, Tensor]:
        """The masters."""
        return dict(zip(self.parameters, self._optimizer.masters, strict=True))

    def moments(self) -> dict[str, Tensor]:
        """In the names of torch's own AdamW, one step count for all."""
        steps = self._optimizer.step_count.detach().to("cpu", torch.float32)
        moments = {}
        for place, name in enumerate(self.parameters):
            moments[f"{name}|step"] = steps.clone()
            moments[f"{name}|exp_avg"] = self._optimizer.exp_avg[place]
            moments[f"{name}|exp_avg_sq"] = self._optimizer.exp_avg_sq[place]
        return moments

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Replaces the masters, and the working weights with them."""
        for name, master in zip(self.parameters, self._optimizer.masters, strict=True):
            master.copy_(weights[name])
        self._optimizer.write_working()

    @torch.no_grad()
    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        """Replaces the moments; those of parameters that never had a gradient are none."""
        optimizer = self._optimizer
        for entry, own in (("exp_avg", optimizer.exp_avg), ("exp_avg_sq", optimizer.exp_avg_sq)):
            for name, moment in zip(self.parameters, own, strict=True):
                value = moments.get(f"{name}|{entry}")
                moment.zero_() if value is None else moment.copy_(value)
        steps = [int(value) for key, value in moments.items() if key.endswith("|step")]
        optimizer.set_step(max(steps, default=0))

    def describe(self) -> dict[str, Any]:
        """Launch, types and memory plan, and why nothing faster was possible."""
        said: dict[str, Any] = {
            "launch": self.launch.value,
            "weights": "float32",
            "compute": str(self._dtype).removeprefix("torch."),
            **self.plan.to_json(),
            **self._reduction.describe(),
        }
        if self._refused:
            said["refused"] = dict(self._refused)
        if self._gpu:
            said["stateBytes"] = self._state_bytes()
            said["peakMemoryBytes"] = torch.cuda.max_memory_allocated(self._parts.device)
        return said

    def finish(self) -> None:
        """Drops graphs, gradients and moments; the parameters become the masters."""
        if self._run is _finished:
            return
        self._run = _finished
        masters = self._optimizer.masters
        for parameter in self._trained:
            parameter.grad = None
        for parameter, master in zip(self._trained, masters, strict=True):
            parameter.data = master
        del self._optimizer, self._reduction, self._stream
        self._release()

    # How it is made ready.

    def _make_optimizer(self) -> Any:
        settings = self._parts.settings
        masters = [parameter.data.float() for parameter in self._trained]
        self._lower_precision()
        if self._gpu:
            fuse(self._parts.model.denoiser)
        return make_adamw(
            self._trained,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            max_norm=settings.gradient_clip,
            masters=masters,
        )

    def _lower_precision(self) -> None:
        """Of networks that a step runs; frozen text encoders are only ever saved."""
        for module in trained_networks(self._parts.model).values():
            trained = any(parameter.requires_grad for parameter in module.parameters())
            if trained or module is self._parts.model.denoiser:
                module.to(self._dtype)

    def _prepare(self) -> Callable[[], None]:
        """The fastest way that works, under the fastest plan that fits.

        Raises:
            UserError: If none fits.
        """
        for plan in self._plans:
            if self._fits(plan):
                run = self._first_that_works()
                if run is not None:
                    return run
            self._release()
        raise self._too_little_memory()

    def _fits(self, plan: MemoryPlan) -> bool:
        """Sets everything up for `plan` and tries forward and backward, on all workers."""
        short = False
        try:
            self._use(plan)
            with warming_up(self._parts.device):
                self._backward(NoReduction())
                self._reduction.settle()
        except torch.OutOfMemoryError:
            short = True
        return not self._parts.world.agree(short)

    def _use(self, plan: MemoryPlan) -> None:
        self.plan = plan
        parts = self._parts
        denoiser: Any = parts.model.denoiser
        if plan.activations is Activations.RECOMPUTED:
            denoiser.enable_gradient_checkpointing(_recompute)
        elif denoiser.is_gradient_checkpointing:
            denoiser.disable_gradient_checkpointing()
        inputs = StepInputs.zeros(plan.batches, plan.pairs, parts.model.latent_shape, parts.device)
        on_device = plan.latents is Place.DEVICE
        self._latents = (
            DeviceLatents(parts.data, parts.device) if on_device else HostLatents(parts.data)
        )
        self._stream = InputStream(inputs, self._latents, self.lag)

    def _first_that_works(self) -> Callable[[], None] | None:
        """A way to run the step, or None if memory is too small for all of them."""
        # With a rate of zero and from moments of zero a step changes nothing but moments.
        with warming_up(self._parts.device):
            for _ in range(WARM_UP_STEPS):
                self._whole()
        for launch in self._launches:
            failure = None
            run = self._whole
            try:
                run = self._launched(launch)
            except Exception as error:
                # Whatever driver or libraries refuse: the step itself has just worked.
                failure = (is_out_of_memory(error), first_line(error))
            if self._parts.world.agree(failure is not None):
                self._drop_gradients()
                self._optimizer.bind()
                if self._parts.world.agree(failure is not None and failure[0]):
                    return None
                reason = failure[1] if failure else "another worker could not"
                self._refused[launch.value] = reason
                _logger.warning("no %s for training steps: %s", launch.value, reason)
                continue
            self.launch = launch
            self._forget_warm_up()
            return run
        return None

    def _launched(self, launch: Launch) -> Callable[[], None]:
        if launch is Launch.EAGER:
            return self._whole
        self._drop_gradients()
        if launch is Launch.GRAPH:
            whole = capture(self._whole)
            self._optimizer.bind()
            return whole.replay
        assert isinstance(self._reduction, BucketReduction)
        return self._split(self._reduction)

    def _split(self, reduction: BucketReduction) -> Callable[[], None]:
        """Forward and backward, then the workers' sums outside of any graph, then the update."""
        first = capture(lambda: self._backward(NoReduction()))
        own = [parameter.grad for parameter in self._trained]
        reduction.take_over()
        second = capture(self._update)
        self._optimizer.bind()

        def run() -> None:
            first.replay()
            for parameter, gradient in zip(self._trained, own, strict=True):
                parameter.grad = gradient
            reduction.reduce(self._loss)
            second.replay()

        return run

    @torch.no_grad()
    def _forget_warm_up(self) -> None:
        for moments in (self._optimizer.exp_avg, self._optimizer.exp_avg_sq):
            torch._foreach_zero_(moments)
        self._optimizer.set_step(0)

    def _make_do(self, pairs: Sequence[Pair], rate: float) -> None:
        """Takes a step that ran out of memory under the next plan that fits, and goes on so.

        Nothing of the step has happened: the optimizer comes last, when the most is free again.
        """
        for plan in self._plans:
            self._run = self._whole
            self.launch = Launch.EAGER
            self._release()
            if not self._fits(plan):
                continue
            _logger.warning("out of device memory; going on with %s", plan.to_json())
            self._stream.send(pairs, rate)
            self._run()
            return
        raise self._too_little_memory()

    # The step.

    def _whole(self) -> None:
        self._backward(self._reduction)
        self._update()

    def _update(self) -> None:
        self._optimizer.learning_rate.copy_(self._stream.inputs.rate)
        self._optimizer.step()

    def _backward(self, reduction: Reduction) -> None:
        """Gradients and loss of all micro-batches."""
        for parameter in self._trained:
            parameter.grad = None
        share = 1.0 / (self.plan.batches * self._parts.world.size)
        self._loss.zero_()
        for batch in range(self.plan.batches):
            if batch == self.plan.batches - 1:
                reduction.begin()
            loss = self._micro_batch(batch) * share
            loss.backward()
            self._loss += loss.detach()
        reduction.finish(self._loss)

    def _micro_batch(self, batch: int) -> Tensor:
        model, inputs = self._parts.model, self._stream.inputs
        noise = inputs.noise[batch]
        latents = self._latents.latents(inputs, batch)
        timesteps = model.timesteps(inputs.times[batch])
        noisy = model.add_noise(latents, noise, timesteps)
        noisy = noisy.to(self._dtype).contiguous(memory_format=torch.channels_last)
        conditioning = self._prompts.conditioning(self.plan.pairs).to(dtype=self._dtype)
        prediction = model.predict(noisy, timesteps, conditioning)
        target = model.target(latents, noise, timesteps)
        return prior_preserving_loss(prediction, target, self._parts.settings.prior_weight)

    # Memory.

    def _drop_gradients(self) -> None:
        for parameter in self._trained:
            parameter.grad = None

    def _release(self) -> None:
        self._drop_gradients()
        gc.collect()
        if self._gpu:
            torch.cuda.empty_cache()

    @contextmanager
    def _memory_needed(self) -> Iterator[None]:
        """The body's want of device memory becomes an error that a user can act on."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise self._too_little_memory() from error

    def _state_bytes(self) -> int:
        trained = sum(parameter.numel() for parameter in self._trained)
        modules = trained_networks(self._parts.model).values()
        total = sum(p.numel() for module in modules for p in module.parameters())
        return state_bytes(trained, total - trained, self._dtype)

    def _too_little_memory(self) -> UserError:
        needed = self._state_bytes() / 2**30
        return UserError(
            f"training does not fit into the GPU's memory: weights, gradients and optimizer take "
            f"{needed:.1f} GiB, and activations come on top, also with one pair at a time",
            field="spec.training.method",
            remedy="Use method: lora, or textEncoder: false, or a GPU with more memory.",
            reason="OutOfMemory",
        )


def _default_launches(parts: EngineParts) -> tuple[Launch, ...]:
    if parts.device.type != "cuda":
        return (Launch.EAGER,)
    if parts.world.size > 1:
        return (Launch.GRAPH, Launch.SPLIT, Launch.EAGER)
    return (Launch.GRAPH, Launch.EAGER)


def _recompute(module: nn.Module, *inputs: Any) -> Any:
    """Gradient checkpointing that can be captured: nothing here draws random numbers."""
    return recompute(module, *inputs, use_reentrant=False, preserve_rng_state=False)


def _finished() -> None:
    raise RuntimeError("the training has been finished")
