"""The engine of GPUs: low-precision weights, float32 masters, one CUDA graph a step.

Forward and backward compute with bfloat16 weights, without autocast's casts. The optimizer keeps
float32 masters and moments, reads the bfloat16 gradients where autograd left them, clips, and
writes masters, moments and weights in one pass. Inputs come through static buffers, losses are
read some steps later. With LoRA the frozen weights are bfloat16 alone, without masters.

Everything but the capture itself runs the same on a CPU, which is how most of it is tested.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dreambooth.errors import UserError
from dreambooth.kernels.adamw import MasterOptimizer, make_adamw
from dreambooth.kernels.availability import check_available
from dreambooth.kernels.fusing import fuse
from dreambooth.models.family import trained_networks
from dreambooth.training.capture import Launch, warming_up
from dreambooth.training.engine import (
    EngineParts,
    Prompts,
    StepLoss,
    trainable_parameters,
    training_bytes,
)
from dreambooth.training.inputs import LossStream
from dreambooth.training.launching import LaunchedStep, default_launches, launch_step
from dreambooth.training.memory import MemoryPlan, latents_place, memory_plans
from dreambooth.training.program import StepProgram
from dreambooth.training.reduction import BucketReduction, NoReduction
from dreambooth.training.schedule import Pair
from dreambooth.training.sharding import (
    OptimizerState,
    ShardedReduction,
    Shards,
    is_worth_sharding,
)

_logger = logging.getLogger(__name__)

# Steps that the host may be ahead: enough to prepare inputs and read losses meanwhile.
LAG = 4


class MasterEngine:
    """Steps with working weights of `working_dtype` beside float32 masters."""

    parameters: dict[str, nn.Parameter]
    lag: int

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
        self._launches = default_launches(parts) if launches is None else launches
        text_encoder = parts.settings.text_encoder
        self.parameters = trainable_parameters(parts.model, text_encoder=text_encoder)
        self._trained = list(self.parameters.values())
        self._losses = LossStream(parts.device, self.lag)
        with self._memory_needed():
            prompts = Prompts(parts)
            self._shards, self._reduction = self._share_out()
            # What other workers hold, after they have sent it here and until the next step.
            self._collected: OptimizerState | None = None
            self._optimizer = self._make_optimizer()
            self._program = StepProgram(
                parts, self._trained, prompts, self._optimizer, self._reduction
            )
            data = parts.data
            cached = [t for c in (data.photos, data.class_images) for t in (c.mean, c.std)]
            self._plans = iter(memory_plans(parts.pairs, latents_place(parts.device, cached)))
            self._step = self._prepare()
        self._finished = False

    def step(self, pairs: Sequence[Pair], rate: float) -> StepLoss:
        """Queues one optimizer step; returns before it has been computed."""
        self._collected = None
        self._program.stream.send(pairs, rate)
        short = False
        try:
            self._step.run()
        except torch.OutOfMemoryError:
            if self._parts.world.size > 1:
                # The others wait for this one's gradients.
                raise
            short = True
        if short:
            self._make_do(pairs, rate)
        return self._losses.send(self._program.loss)

    def collect(self) -> None:
        """Brings what the workers hold to the first; all of them have to come here."""
        if isinstance(self._reduction, ShardedReduction):
            self._collected = self._reduction.collect(self._held())

    def weights(self) -> dict[str, Tensor]:
        """The masters; where workers share them out, what `collect` has brought."""
        return dict(zip(self.parameters, self._state().masters, strict=True))

    def moments(self) -> dict[str, Tensor]:
        """In the names of torch's own AdamW, one step count for all."""
        steps = self._optimizer.step_count.detach().to("cpu", torch.float32)
        state = self._state()
        moments = {}
        for place, name in enumerate(self.parameters):
            moments[f"{name}|step"] = steps.clone()
            moments[f"{name}|exp_avg"] = state.exp_avg[place]
            moments[f"{name}|exp_avg_sq"] = state.exp_avg_sq[place]
        return moments

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Replaces the masters, and the working weights with them."""
        names = list(self.parameters)
        for place, master in self._masters().items():
            master.copy_(weights[names[place]])
        self._optimizer.write_working()
        for place in set(range(len(names))).difference(self._shards.own):
            self._trained[place].copy_(weights[names[place]])

    @torch.no_grad()
    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        """Replaces the moments; those of parameters that never had a gradient are none."""
        optimizer, names = self._optimizer, list(self.parameters)
        for entry, own in (("exp_avg", optimizer.exp_avg), ("exp_avg_sq", optimizer.exp_avg_sq)):
            for place, moment in zip(self._shards.own, own, strict=True):
                value = moments.get(f"{names[place]}|{entry}")
                moment.zero_() if value is None else moment.copy_(value)
        steps = [int(value) for key, value in moments.items() if key.endswith("|step")]
        optimizer.set_step(max(steps, default=0))

    @property
    def plan(self) -> MemoryPlan:
        """How the step is fitted into memory."""
        return self._program.plan

    def describe(self) -> dict[str, Any]:
        """Launch, types and memory plan, and why nothing faster was possible."""
        said: dict[str, Any] = {
            "launch": self._step.launch.value,
            "weights": "float32",
            "compute": str(self._dtype).removeprefix("torch."),
            **self.plan.to_json(),
            **self._program.reduction.describe(),
        }
        if self._step.refused:
            said["refused"] = dict(self._step.refused)
        if self._gpu:
            said["stateBytes"] = self._state_bytes()
            said["peakMemoryBytes"] = torch.cuda.max_memory_allocated(self._parts.device)
        return said

    def finish(self) -> None:
        """Drops graphs, gradients and moments; the parameters become the masters."""
        if self._finished:
            return
        self._finished = True
        program = self._program
        program.drop_gradients()
        for place, master in self._masters().items():
            self._trained[place].data = master
        del self._step, self._optimizer, self._program, self._reduction, self._collected
        # The last references go with this function: graphs before the memory that they use.
        program.release()

    def _share_out(self) -> tuple[Shards, NoReduction | BucketReduction]:
        """Who updates what, and what brings gradients there."""
        world, whole = self._parts.world, Shards.whole(len(self._trained))
        if world.size == 1:
            return whole, NoReduction()
        if not is_worth_sharding(self._trained, world.size):
            return whole, BucketReduction(self._trained)
        shards = Shards.of([p.numel() for p in self._trained], world.rank, world.size)
        return shards, ShardedReduction(self._trained, shards)

    def _masters(self) -> dict[int, Tensor]:
        """By their parameters' places: this worker's, or all of them where they were collected."""
        if self._collected is not None:
            return dict(enumerate(self._collected.masters))
        return dict(zip(self._shards.own, self._optimizer.masters, strict=True))

    def _held(self) -> OptimizerState:
        """This worker's."""
        optimizer = self._optimizer
        return OptimizerState(optimizer.masters, optimizer.exp_avg, optimizer.exp_avg_sq)

    def _state(self) -> OptimizerState:
        """All of it."""
        if self._collected is not None:
            return self._collected
        if len(self._shards.own) < len(self._trained):
            raise RuntimeError("other workers hold a part of the state: collect() comes first")
        return self._held()

    def _make_optimizer(self) -> MasterOptimizer:
        settings = self._parts.settings
        masters = [self._trained[place].data.float() for place in self._shards.own]
        self._lower_precision()
        if check_available(self._parts.device) is None:
            fuse(self._parts.model.denoiser)
        return make_adamw(
            [self._trained[place] for place in self._shards.own],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            max_norm=settings.gradient_clip,
            masters=masters,
            over_workers=self._reduction.over_workers,
            portions=self._shards.ends,
        )

    def _lower_precision(self) -> None:
        """Of networks that a step runs; frozen text encoders are only ever saved."""
        for module in trained_networks(self._parts.model).values():
            trained = any(parameter.requires_grad for parameter in module.parameters())
            if trained or module is self._parts.model.denoiser:
                module.to(self._dtype)

    def _prepare(self) -> LaunchedStep:
        """The fastest way that works, under the fastest plan that fits.

        Raises:
            UserError: If none fits.
        """
        for plan in self._plans:
            step = self._launch() if self._fits(plan) else None
            if step is not None:
                return step
            self._program.release()
        raise self._too_little_memory()

    def _launch(self) -> LaunchedStep | None:
        """The fastest way under the present plan; None if memory is too small for it after all."""
        try:
            return launch_step(self._program, self._launches)
        except torch.OutOfMemoryError:
            if self._parts.world.size > 1:
                # The others wait for this one's gradients.
                raise
        return None

    def _fits(self, plan: MemoryPlan) -> bool:
        """Sets everything up for `plan` and tries forward and backward, on all workers."""
        short = False
        try:
            self._program.use(plan, self.lag)
            with warming_up(self._parts.device):
                self._program.backward(NoReduction())
                self._program.reduction.settle()
        except torch.OutOfMemoryError:
            short = True
        return not self._parts.world.agree(short)

    def _make_do(self, pairs: Sequence[Pair], rate: float) -> None:
        """Takes a step that ran out of memory under the next plan that fits, and goes on so.

        Nothing of the step has happened: the optimizer comes last, when the most is free again.
        """
        for plan in self._plans:
            self._step = LaunchedStep(self._program.whole, Launch.EAGER, self._step.refused)
            self._program.release()
            if not self._fits(plan):
                continue
            _logger.warning("out of device memory; going on with %s", plan.to_json())
            self._program.stream.send(pairs, rate)
            self._step.run()
            return
        raise self._too_little_memory()

    @contextmanager
    def _memory_needed(self) -> Iterator[None]:
        """The body's want of device memory becomes an error that a user can act on."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise self._too_little_memory() from error

    def _state_bytes(self) -> int:
        everything = training_bytes(self._parts.model, self._trained, self._dtype)
        return everything - self._shards.bytes_elsewhere(self._trained)

    def _too_little_memory(self) -> UserError:
        needed = self._state_bytes() / 2**30
        return UserError(
            f"training does not fit into the GPU's memory: weights, gradients and optimizer take "
            f"{needed:.1f} GiB, and activations come on top, also with one pair at a time",
            field="spec.training.method",
            remedy="Use method: lora, or textEncoder: false, or a GPU with more memory, or more of "
            "them (spec.cluster.workers): they share what the optimizer needs.",
            reason="OutOfMemory",
        )
