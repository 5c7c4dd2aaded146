"""What changes from step to step, in device tensors that stay where they are.

A captured step reads its inputs from fixed addresses. The host prepares them in pinned memory, a
few steps ahead of the device, and the copies queue up behind the steps before: nobody waits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dreambooth.training.latents import LatentCache
from dreambooth.training.schedule import Pair, Sample, draw, samples_of
from dreambooth.training.settings import TrainingData


@dataclass(frozen=True)
class StepInputs:
    """One step's inputs: M micro-batches of p pairs, in each the photos first.

    Attributes:
        rows: `[M, 2p]` int64: where a picture is in the latent table.
        posterior: `[M, 2p, C, h, w]` float32: what latents are made of together with the table, or
            the latents themselves where the table stays with the host.
        noise: `[M, 2p, C, h, w]` float32.
        times: `[M, 2p]` float64: shares of the noise process.
        rate: `[]` float32: the learning rate.
    """

    rows: Tensor
    posterior: Tensor
    noise: Tensor
    times: Tensor
    rate: Tensor

    @classmethod
    def zeros(
        cls, batches: int, pairs: int, latent: tuple[int, int, int], device: torch.device
    ) -> "StepInputs":
        """For `batches` micro-batches of `pairs` pairs."""
        shape = (batches, 2 * pairs)
        return cls(
            rows=torch.zeros(shape, dtype=torch.int64, device=device),
            posterior=torch.zeros((*shape, *latent), device=device),
            noise=torch.zeros((*shape, *latent), device=device),
            times=torch.zeros(shape, dtype=torch.float64, device=device),
            rate=torch.zeros((), device=device),
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in a fixed order."""
        return (self.rows, self.posterior, self.noise, self.times, self.rate)

    def pinned(self) -> "StepInputs":
        """A copy in memory that a device reads by itself."""
        return StepInputs(*(tensor.pin_memory() for tensor in self.tensors()))


class Latents(Protocol):
    """Where the encoded pictures are."""

    def fill(
        self, sample: Sample, posterior: Tensor, host: StepInputs, at: tuple[int, int]
    ) -> None:
        """Writes what `latents` needs for one sample; `posterior` are its draws `[C, h, w]`."""

    def latents(self, inputs: StepInputs, batch: int) -> Tensor:
        """The latents `[2p, C, h, w]` of a micro-batch."""


class DeviceLatents:
    """All pictures on the device, looked up within the step."""

    def __init__(self, data: TrainingData, device: torch.device) -> None:
        caches = (data.photos, data.class_images)
        self._mean, self._std = (
            torch.cat([part.flatten(0, 1) for part in parts]).to(device)
            for parts in ([c.mean for c in caches], [c.std for c in caches])
        )
        self._data = data
        self._class_row = data.photos.mean.shape[0] * data.photos.mean.shape[1]

    def fill(
        self, sample: Sample, posterior: Tensor, host: StepInputs, at: tuple[int, int]
    ) -> None:
        """Writes the row and the draws."""
        crops = _cache(self._data, sample).mean.shape[1]
        first = self._class_row if sample.of_class else 0
        host.rows[at] = first + sample.picture * crops + sample.seed % crops
        host.posterior[at].copy_(posterior)

    def latents(self, inputs: StepInputs, batch: int) -> Tensor:
        """Mean plus deviation times the draws."""
        rows = inputs.rows[batch]
        return self._mean[rows] + self._std[rows] * inputs.posterior[batch]


class HostLatents:
    """Pictures in the host's memory, for more of them than a device has room for."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data.on(torch.device("cpu"))

    def fill(
        self, sample: Sample, posterior: Tensor, host: StepInputs, at: tuple[int, int]
    ) -> None:
        """Writes the finished latent."""
        latent = _cache(self._data, sample).sample(sample.picture, posterior, sample.seed)
        host.posterior[at].copy_(latent)

    def latents(self, inputs: StepInputs, batch: int) -> Tensor:
        """They came with the inputs."""
        return inputs.posterior[batch]


def _cache(data: TrainingData, sample: Sample) -> LatentCache:
    return data.class_images if sample.of_class else data.photos


class InputStream:
    """Prepares steps on the host and sends them to the device, in order."""

    def __init__(self, device_side: StepInputs, latents: Latents, ahead: int) -> None:
        """`ahead`: how many steps may be prepared that the device has not begun."""
        self.inputs = device_side
        self._latents = latents
        self._on_gpu = device_side.rate.device.type == "cuda"
        plain = StepInputs(*(torch.zeros_like(t, device="cpu") for t in device_side.tensors()))
        make: Callable[[], StepInputs] = plain.pinned if self._on_gpu else lambda: plain
        self._slots = [(make(), self._event()) for _ in range(ahead + 2 if self._on_gpu else 1)]
        self._next = 0

    def send(self, pairs: Sequence[Pair], rate: float) -> None:
        """Fills the device's inputs with the next step's, behind what is queued there."""
        host, free = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        if free is not None:
            # The copies of the step that had this slot last.
            free.synchronize()
        self._fill(host, pairs)
        host.rate.fill_(rate)
        for target, source in zip(self.inputs.tensors(), host.tensors(), strict=True):
            target.copy_(source, non_blocking=True)
        if free is not None:
            free.record()

    def _fill(self, host: StepInputs, pairs: Sequence[Pair]) -> None:
        batches, width = host.rows.shape
        part = width // 2
        shape = tuple(host.noise.shape[2:])
        for batch in range(batches):
            for place, sample in enumerate(samples_of(pairs[batch * part : (batch + 1) * part])):
                drawn = draw(sample.seed, (shape[0], shape[1], shape[2]))
                self._latents.fill(sample, drawn.posterior, host, (batch, place))
                host.noise[batch, place].copy_(drawn.noise)
                host.times[batch, place] = sample.time

    def _event(self) -> torch.cuda.Event | None:
        return torch.cuda.Event() if self._on_gpu else None


class PendingLoss:
    """A loss on its way to the host."""

    def __init__(self, slot: Tensor, arrived: torch.cuda.Event | None) -> None:
        self._slot = slot
        self._arrived = arrived

    def read(self) -> float:
        """Waits until it is there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._slot)


class LossStream:
    """Brings the losses of steps to the host while later steps run."""

    def __init__(self, device: torch.device, ahead: int) -> None:
        """A loss must be read before `ahead` + 1 further ones are sent."""
        on_gpu = device.type == "cuda"
        count = ahead + 2
        self._values = torch.zeros(count, pin_memory=on_gpu)
        self._events = [torch.cuda.Event() if on_gpu else None for _ in range(count)]
        self._next = 0

    def send(self, loss: Tensor) -> PendingLoss:
        """Copies a device scalar, behind what is queued there."""
        place = self._next
        self._next = (place + 1) % len(self._events)
        self._values[place].copy_(loss, non_blocking=True)
        event = self._events[place]
        if event is not None:
            event.record()
        return PendingLoss(self._values[place], event)
