"""The workers of one training run, as the trainer sees them."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class World(Protocol):
    """How the work of a step is shared and brought together."""

    rank: int
    size: int

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This worker's contiguous part of a step's items."""

    def average(self, loss: Tensor, gradients: Iterable[Tensor | None]) -> Tensor:
        """Averages gradients over the workers in place; returns the averaged loss."""

    def agree(self, wish: bool) -> bool:
        """Whether any worker wishes so; all get the same answer."""

    def barrier(self) -> None:
        """Waits for all workers."""


class Alone:
    """A world of one."""

    rank = 0
    size = 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """All items."""
        return items

    def average(self, loss: Tensor, gradients: Iterable[Tensor | None]) -> Tensor:
        """Nothing to average."""
        return loss

    def agree(self, wish: bool) -> bool:
        """Its own wish."""
        return wish

    def barrier(self) -> None:
        """Nobody to wait for."""


class ProcessGroup:
    """The workers of torch.distributed's default process group."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part; the number of items is a multiple of the number of workers."""
        part = len(items) // self.size
        return items[self.rank * part : (self.rank + 1) * part]

    def average(self, loss: Tensor, gradients: Iterable[Tensor | None]) -> Tensor:
        """One all-reduce over all gradients and the loss, flattened."""
        tensors = [gradient for gradient in gradients if gradient is not None]
        flat = torch.cat([*(t.reshape(-1) for t in tensors), loss.reshape(1).to(tensors[0].dtype)])
        dist.all_reduce(flat)
        flat /= self.size
        offset = 0
        for tensor in tensors:
            tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
            offset += tensor.numel()
        return flat[-1]

    def agree(self, wish: bool) -> bool:
        """One all-reduce of one number, where the process group computes."""
        on_gpu = dist.get_backend() == "nccl"
        votes = torch.tensor([float(wish)], device="cuda" if on_gpu else "cpu")
        dist.all_reduce(votes)
        return bool(votes.item())

    def barrier(self) -> None:
        """Waits for all ranks."""
        dist.barrier()


def current_world() -> World:
    """The process group if there is one of more than one worker, else a world of one."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return ProcessGroup()
    return Alone()
