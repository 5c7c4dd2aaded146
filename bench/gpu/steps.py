"""A whole training step as one CUDA graph, in the ways its parts can be run.

The first way is the one to beat: bfloat16 weights beside float32 masters, channels_last,
the text encoder trained, latents cached, clipping, AdamW from torch, no compiler.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.gpu.architecture import Architecture
from bench.gpu.attention import preferring
from bench.gpu.timing import capture, milliseconds
from dreambooth.sampling.devices import this_device

LEARNING_RATE = 5e-6
WEIGHT_DECAY = 0.01
CLIP = 1.0


@dataclass(frozen=True)
class StepWay:
    """One way of running a step."""

    name: str
    attention: str | None = None
    fused_modules: bool = False
    fused_optimizer: bool = False
    compiled: bool = False


STEP_WAYS = (
    StepWay("channels_last, torch's AdamW"),
    StepWay("+ cuDNN attention", attention="cudnn"),
)
FUSED_STEP_WAYS = (
    StepWay("+ our AdamW", attention="cudnn", fused_optimizer=True),
    StepWay("+ our AdamW and kernels", "cudnn", fused_modules=True, fused_optimizer=True),
)
COMPILED_STEP_WAYS = (StepWay("+ our AdamW, Inductor", fused_optimizer=True, compiled=True),)


class Optimizer(Protocol):
    """Takes gradients that are there and changes the weights, without a word to the host."""

    name: str

    def clear(self) -> None:
        """Called before a backward pass."""

    def step(self) -> None:
        """One step with the gradients that are there."""

    def bind(self) -> None:
        """Called after a capture."""


class TorchMasters:
    """Float32 masters and moments of bfloat16 weights, pass by pass with torch's own kernels."""

    name = "torch"

    def __init__(self, weights: Sequence[nn.Parameter]) -> None:
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        self._weights: list[Tensor] = [weight.data for weight in weights]
        self._grads = [grad for weight in weights if (grad := weight.grad) is not None]
        self._masters = [weight.float().clone() for weight in self._weights]
        self._first = [torch.zeros_like(master) for master in self._masters]
        self._second = [torch.zeros_like(master) for master in self._masters]
        self._wide = [torch.empty_like(master) for master in self._masters]
        device = self._masters[0].device
        self._steps = [torch.zeros((), device=device) for _ in self._masters]
        self._rate = torch.tensor(LEARNING_RATE, device=device)

    def clear(self) -> None:
        """Gradients are zeroed after each step."""

    def bind(self) -> None:
        """Torch's operations know their tensors."""

    def step(self) -> None:
        """Gradients to float32, clip, AdamW, masters to bfloat16."""
        torch._foreach_copy_(self._wide, self._grads)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self._wide)))
        torch._foreach_mul_(self._wide, (CLIP / (norm + 1e-6)).clamp(max=1.0))
        torch._foreach_add_(self._steps, 1)
        torch._fused_adamw_(
            self._masters,
            self._wide,
            self._first,
            self._second,
            [],
            self._steps,
            lr=self._rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=WEIGHT_DECAY,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
        torch._foreach_copy_(self._weights, self._masters)
        torch._foreach_zero_(self._grads)


class TrainingStep:
    """The networks, their optimizer and one step over random latents and text."""

    def __init__(self, architecture: Architecture, way: StepWay, pairs: int) -> None:
        self.samples = 2 * pairs
        device = this_device()
        self._dtype = torch.bfloat16
        with torch.device(device):
            self._unet, self._text = architecture.unet(), architecture.text_encoder()
            self._mean = architecture.latents(self.samples, torch.float32)
            self._std = architecture.latents(self.samples, torch.float32).abs()
            self._ids = architecture.token_ids(self.samples)
            self._alphas = torch.linspace(0.9999, 0.005, 1000)
            self.loss = torch.zeros(())
        for module in (self._unet, self._text):
            module.to(self._dtype).train()
        self._unet.to(memory_format=torch.channels_last)
        self._attention = way.attention
        self._prepare(way)
        weights = [*self._unet.parameters(), *self._text.parameters()]
        self.optimizer = _optimizer(way, weights)

    def _prepare(self, way: StepWay) -> None:
        if way.fused_modules:
            from dreambooth.kernels.fusing import fuse

            fuse(self._unet)
        if way.compiled:
            for module in (self._unet, self._text):
                module.forward = torch.compile(module.forward, dynamic=False)

    def forward_backward(self) -> None:
        """Loss and gradients."""
        self.optimizer.clear()
        latents = self._mean + self._std * torch.randn_like(self._mean)
        noise = torch.randn_like(latents)
        times = torch.randint(0, 1000, (self.samples,), device=latents.device)
        alpha = self._alphas[times].view(-1, 1, 1, 1)
        noisy = (alpha.sqrt() * latents + (1 - alpha).sqrt() * noise).to(self._dtype)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with preferring(self._attention):
            hidden = self._text(input_ids=self._ids)[0]
            output = self._unet(noisy, times, hidden, return_dict=False)[0].float()
            (ours, prior), (target, prior_target) = output.chunk(2), noise.chunk(2)
            loss = F.mse_loss(ours, target) + F.mse_loss(prior, prior_target)
            loss.backward()
        self.loss.copy_(loss.detach())

    def step(self) -> None:
        """Forward, backward, clip, optimizer."""
        self.forward_backward()
        with torch.no_grad():
            self.optimizer.step()

    def optimize(self) -> None:
        """The optimizer alone."""
        with torch.no_grad():
            self.optimizer.step()


def _optimizer(way: StepWay, weights: Sequence[nn.Parameter]) -> Optimizer:
    if not way.fused_optimizer:
        return TorchMasters(weights)
    from bench.gpu.our_optimizer import OurMasters

    return OurMasters(weights, LEARNING_RATE, WEIGHT_DECAY, CLIP)


def training_steps(
    architecture: Architecture, ways: Sequence[StepWay], pairs: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Milliseconds a step, by way and number of pairs; prints as it goes."""
    torch.backends.cudnn.benchmark = True
    for way in ways:
        for number in pairs:
            row: dict[str, Any] = {"way": way.name, "pairs": number}
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            try:
                row |= _measured(architecture, way, number)
            except Exception as error:
                row["failed"] = f"{type(error).__name__}: {str(error)[:400]}"
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            print(f"training step, {_words(row)}", flush=True)
            yield row


def _measured(architecture: Architecture, way: StepWay, pairs: int) -> dict[str, Any]:
    began = time.perf_counter()
    step = TrainingStep(architecture, way, pairs)
    made = time.perf_counter() - began
    spent = _timed(step, step.step)
    setup = time.perf_counter() - began - made
    found = {
        "ms": spent,
        "images_a_second": step.samples / spent * 1e3,
        "setup_s": setup,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0,
        "loss": float(step.loss),
        "optimizer": step.optimizer.name,
    }
    # With the gradients that the last step has left.
    found["optimizer_ms"] = _timed(step, step.optimize)
    found["forward_backward_ms"] = _timed(step, step.forward_backward)
    return found


def _timed(step: TrainingStep, work: Callable[[], object]) -> float:
    """Milliseconds of a replay; the graph's memory is given back."""
    if not torch.cuda.is_available():
        return milliseconds(work, rounds=1, warm=1)
    graph = capture(work, warm=3)
    step.optimizer.bind()
    try:
        return milliseconds(graph.replay, rounds=5, warm=2, repeats=5)
    finally:
        graph.reset()
        torch.cuda.empty_cache()


def _words(row: dict[str, Any]) -> str:
    head = f"{row['way']}, {row['pairs']}+{row['pairs']}"
    if "failed" in row:
        return f"{head}: FAILED {row['failed']}"
    return (
        f"{head}: {row['ms']:.1f} ms ({row['images_a_second']:.1f} images/s; forward and backward "
        f"{row['forward_backward_ms']:.1f}, {row['optimizer']} optimizer "
        f"{row['optimizer_ms']:.1f}; set-up "
        f"{row['setup_s']:.1f} s, {row['peak_gib']:.1f} GiB, loss {row['loss']:.3f})"
    )
