"""What takes the training steps: one interface, two engines.

`EagerEngine` computes with float32 weights, or autocasts them, operation by operation: the
reference, and the engine of CPUs. `MasterEngine` computes with low-precision weights beside
float32 masters and launches a whole step as one CUDA graph: the engine of GPUs. Both see the same
samples in the same order, and their checkpoints are the same, so that a training begun with one
can go on with the other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dreambooth.models.conditioning import Conditioning
from dreambooth.models.family import ModelFamily, trained_networks
from dreambooth.training.distributed import World
from dreambooth.training.memory import state_bytes
from dreambooth.training.schedule import Pair
from dreambooth.training.settings import TrainerSettings, TrainingData


@dataclass(frozen=True)
class EngineParts:
    """What an engine is made of.

    Attributes:
        pairs: Pairs of one step that fall to this worker.
    """

    model: ModelFamily
    data: TrainingData
    settings: TrainerSettings
    world: World
    device: torch.device
    pairs: int


class StepLoss(Protocol):
    """The loss of a step that may still be under way."""

    def read(self) -> float:
        """The mean over the batch of all workers; waits for it if need be."""


class StepEngine(Protocol):
    """Takes optimizer steps.

    Attributes:
        parameters: The trained parameters by name.
        lag: How many steps the host may be ahead of the device: the loss of a step is best read
            when this many more have been started.
    """

    parameters: dict[str, nn.Parameter]
    lag: int

    def step(self, pairs: Sequence[Pair], rate: float) -> StepLoss:
        """One optimizer step on this worker's `pairs` at the learning rate `rate`."""

    def collect(self) -> None:
        """Brings what workers hold of the state to the first; all of them call it together.

        Before it `weights` and `moments` may be incomplete, and after the next step again.
        """

    def weights(self) -> dict[str, Tensor]:
        """The trained weights in float32, the tensors themselves."""

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's state as named tensors `<parameter>|<entry>`, themselves."""

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Replaces the trained weights."""

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        """Replaces the optimizer's state."""

    def describe(self) -> dict[str, Any]:
        """How it computes, JSON-able, for the job's record."""

    def finish(self) -> None:
        """Leaves the float32 weights in the model and lets go of all else; no step follows."""


EngineFactory = Callable[[EngineParts], StepEngine]


def trainable_parameters(model: ModelFamily, *, text_encoder: bool) -> dict[str, nn.Parameter]:
    """The parameters to train by name, after switching the others off.

    With adapters in place those are the adapters; without, all of the denoiser's and, with
    `text_encoder`, the text encoders'.
    """
    parts = trained_networks(model)
    has_adapters = any(getattr(part, "peft_config", None) for part in parts.values())
    if not has_adapters:
        model.unfreeze(text_encoder=text_encoder)
    return {
        f"{part}.{name}": parameter
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def training_bytes(
    model: ModelFamily, trained: Iterable[nn.Parameter], working: torch.dtype
) -> int:
    """What the state of a training takes, as `state_bytes` counts it.

    Args:
        model: Of which networks are trained; shapes are enough.
        trained: The parameters that are.
        working: Type of the weights that steps compute with.
    """
    count = sum(parameter.numel() for parameter in trained)
    networks = trained_networks(model).values()
    total = sum(p.numel() for network in networks for p in network.parameters())
    return state_bytes(count, total - count, working)


class Prompts:
    """The two prompts as the denoiser is told of them; encoded once where that is enough."""

    def __init__(self, parts: EngineParts) -> None:
        self._model = parts.model
        self._ids = tuple(
            torch.cat(both).to(parts.device)
            for both in zip(parts.data.photo_ids, parts.data.class_ids, strict=True)
        )
        self._trained = parts.settings.text_encoder
        self._frozen = None if self._trained else self._encode()

    def conditioning(self, pairs: int) -> Conditioning:
        """`2 * pairs` rows, the photos' first; each prompt goes through the encoders once."""
        encoded = self._encode() if self._frozen is None else self._frozen
        return encoded.repeat_interleave(pairs)

    def _encode(self) -> Conditioning:
        with torch.set_grad_enabled(self._trained):
            return self._model.encode_prompt(self._ids)
