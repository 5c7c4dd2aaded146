"""Draws a list of pictures: batch after batch, each delivered while the next is computed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from dreambooth.sampling.batches import Batches
from dreambooth.sampling.decoding import Developing, Drawn
from dreambooth.sampling.settings import PictureRequest, SamplingSettings


class Begins(Protocol):
    """What begins to draw a batch; a `Sampler` does."""

    def start(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: SamplingSettings
    ) -> Developing:
        """See `Sampler.start`."""


class Machine(Protocol):
    """A model on a device, ready to draw."""

    @property
    def sampler(self) -> Begins:
        """What draws."""

    def batches(self, settings: SamplingSettings) -> Batches:
        """How much it draws at once with `settings`."""

    def release(self) -> None:
        """Gives back all memory but that of the model."""


@dataclass(frozen=True)
class _Begun:
    count: int
    developing: Developing

    def take(self) -> Drawn:
        return self.developing.take().first(self.count)


def draw(
    machine: Machine, requests: Sequence[PictureRequest], settings: SamplingSettings
) -> Iterator[Drawn]:
    """Pictures for `requests` in their order, some at a time.

    A batch that finds too little memory is begun anew as smaller ones; what was drawn before it is
    delivered first.

    Yields:
        Some of them, until all are drawn.

    Raises:
        InfrastructureError: If a single picture finds too little memory.
    """
    batches = machine.batches(settings)
    left = list(requests)
    before: _Begun | None = None
    while left:
        count = batches.next(len(left))
        begun = _begin(machine, left[:count], batches.rows(count), settings)
        if before is not None:
            yield before.take()
        before = begun
        if begun is None:
            machine.release()
            batches.shrink(count)
        else:
            left = left[count:]
    if before is not None:
        yield before.take()


def _begin(
    machine: Machine, requests: Sequence[PictureRequest], rows: int, settings: SamplingSettings
) -> _Begun | None:
    """A batch on its way; None if there is too little memory for it."""
    filled = [*requests, *[requests[-1]] * (rows - len(requests))]
    try:
        developing = machine.sampler.start(
            [request.prompt for request in filled], [request.seed for request in filled], settings
        )
    except torch.cuda.OutOfMemoryError:
        # The exception holds what was computed so far until this block is left.
        return None
    return _Begun(len(requests), developing)
