"""Sharing an optimizer's state out among workers.

Every worker computes with all weights, but each parameter has one worker that holds its master and
moments and updates it. Gradients are added up there alone, half as many bytes as adding them up
everywhere; new weights come from there, portion by portion beside the update of the next. With *N*
workers the update takes an *N*th of the time, and masters and moments an *N*th of the memory.
That is stage one of ZeRO (Rajbhandari et al., arXiv 1910.02054), by parameter instead of by range.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import _coalescing_manager

from dreambooth.training.reduction import BUCKET_BYTES, BucketReduction

# In so many parts weights are sent out, each beside the update of the next.
PORTIONS = 8


@dataclass(frozen=True)
class Shards:
    """Who updates what.

    Attributes:
        rank: This worker.
        owners: Of each parameter, the worker that updates it.
        portions: Of each parameter, with which others it is sent out; never less than the one's
            before it.
    """

    rank: int
    owners: tuple[int, ...]
    portions: tuple[int, ...]

    @classmethod
    def of(cls, sizes: Sequence[int], rank: int, workers: int) -> "Shards":
        """Shards of parameters of `sizes`: neighbours go to whoever has least so far."""
        loads, owners, portions = [0] * workers, [], []
        total, before = sum(sizes), 0
        for size in sizes:
            owner = loads.index(min(loads))
            loads[owner] += size
            owners.append(owner)
            portions.append(before * PORTIONS // total)
            before += size
        return cls(rank, tuple(owners), tuple(portions))

    @classmethod
    def whole(cls, count: int) -> "Shards":
        """What there is where each worker updates all of `count` parameters, at once."""
        return cls(0, (0,) * count, (0,) * count)

    @property
    def own(self) -> list[int]:
        """Places of the parameters that this worker updates."""
        return [place for place, owner in enumerate(self.owners) if owner == self.rank]

    @property
    def ends(self) -> list[int]:
        """Where portions of `own` end."""
        mine = [self.portions[place] for place in self.own]
        return [bisect_right(mine, number) for number in range(self.portions[-1] + 1)]

    def bytes_elsewhere(self, parameters: Sequence[Tensor]) -> int:
        """What masters and two moments take that other workers hold, in float32."""
        owned = zip(parameters, self.owners, strict=True)
        return 12 * sum(p.numel() for p, owner in owned if owner != self.rank)


@dataclass(frozen=True)
class OptimizerState:
    """Masters and moments in the order of their parameters."""

    masters: list[Tensor]
    exp_avg: list[Tensor]
    exp_avg_sq: list[Tensor]


class ShardedReduction(BucketReduction):
    """Adds each gradient up where its parameter is updated, and sends weights out from there."""

    def __init__(self, parameters: Sequence[nn.Parameter], shards: Shards) -> None:
        super().__init__(parameters)
        self.shards = shards
        self._owner_of = dict(zip(self._parameters, shards.owners, strict=True))
        self.over_workers = dist.all_reduce
        self.written = self._send_weights

    def all_written(self) -> None:
        """Waits for the others' weights."""
        self._wait()

    def collect(self, held: OptimizerState) -> OptimizerState | None:
        """What all workers hold, for the first of them; None for the others.

        Tensors of others come to the device where it has room for them, else to the host.
        """
        place = self._room()
        state = OptimizerState(
            self._collect(held.masters, place),
            self._collect(held.exp_avg, place),
            self._collect(held.exp_avg_sq, place),
        )
        return state if self.shards.rank == 0 else None

    def describe(self) -> dict[str, Any]:
        """JSON-able, for the job's record."""
        return {**super().describe(), "optimizerState": "shared out"}

    def _room(self) -> torch.device:
        """Where the first worker puts what others hold."""
        device = self._parameters[0].device
        if device.type != "cuda" or self.shards.rank != 0:
            return device
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        fits = self.shards.bytes_elsewhere(self._parameters) < free
        return device if fits else torch.device("cpu")

    def _collect(self, tensors: Sequence[Tensor], place: torch.device) -> list[Tensor]:
        own, found = iter(tensors), []
        for parameter, owner in zip(self._parameters, self.shards.owners, strict=True):
            mine = next(own) if owner == self.shards.rank else None
            if self.shards.rank != 0:
                if mine is not None:
                    dist.send(_flat(mine), 0)
                continue
            if mine is None:
                mine = torch.empty_like(parameter, dtype=torch.float32)
                dist.recv(_flat(mine), owner)
                mine = mine.to(place)
            found.append(mine)
        return found

    def _send_weights(self, portion: int) -> None:
        """This worker's weights of a portion are there; those of the others are waited for."""
        owners = zip(self._parameters, self.shards.owners, self.shards.portions, strict=True)
        with self._together():
            for parameter, owner, number in owners:
                if number == portion:
                    self._keep(dist.broadcast(_flat(parameter.data), owner, async_op=True))

    def _send_bucket(self, gradients: dict[nn.Parameter, Tensor]) -> None:
        with self._together():
            for parameter, gradient in gradients.items():
                self._keep(dist.reduce(_flat(gradient), self._owner_of[parameter], async_op=True))

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What is sent in the body goes as one, where the group can do that."""
        device = self._parameters[0].device
        if device.type != "cuda":
            yield
            return
        with _coalescing_manager(device=device, async_ops=True) as all_of_it:
            yield
        self._works.append(all_of_it)  # type: ignore[arg-type]

    def _keep(self, work: Any) -> None:
        if self._parameters[0].device.type != "cuda":
            self._works.append(work)


def _flat(tensor: Tensor) -> Tensor:
    """The same memory in one dimension: the order of a dense tensor's dimensions is no matter."""
    return tensor.as_strided((tensor.numel(),), (1,))


def is_worth_sharding(parameters: Sequence[nn.Parameter], workers: int) -> bool:
    """Whether there is enough to update for so many; adapters are next to nothing."""
    enough = sum(parameter.nbytes for parameter in parameters) > BUCKET_BYTES
    return enough and len(parameters) >= workers
