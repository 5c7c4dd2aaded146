"""Adding up gradients over workers while they are still being computed.

Gradients travel in buckets, in their parameters' own type and in the order in which a backward
pass comes to them: as soon as a bucket's gradients are there, their all-reduce starts and runs
beside the rest of the pass. They are added up where autograd left them; copies into one buffer a
bucket would compete with the pass for memory. Everything works the same under CUDA graph capture,
where NCCL's kernels become part of the graph, and operation by operation.

In bfloat16 a sum over workers is rounded to 8 bits, relatively by 2^-9 at every addition; the
micro-batches of one worker are added up with the same rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import AllreduceCoalescedOptions

# Large enough for the full bandwidth of a network, small enough to start early.
BUCKET_BYTES = 64 * 2**20


class Reduction(Protocol):
    """Brings the gradients of one step together.

    Attributes:
        over_workers: Adds a sum over parameters up over workers that update others; None where
            each updates all.
        written: For the optimizer to call with each portion of weights it has written; None where
            nobody waits for them.
    """

    over_workers: Callable[[Tensor], Any] | None
    written: Callable[[int], None] | None

    def settle(self) -> None:
        """Called once after a first backward pass, when it is known which gradients there are."""

    def begin(self) -> None:
        """The next backward pass is the step's last."""

    def finish(self, loss: Tensor) -> None:
        """After it: gradients and `loss` are sums over all workers."""

    def all_written(self) -> None:
        """After the optimizer's step: the weights are the new ones."""

    def describe(self) -> dict[str, Any]:
        """JSON-able, for the job's record."""


class NoReduction:
    """For a worker without others."""

    over_workers: Callable[[Tensor], Any] | None = None
    written: Callable[[int], None] | None = None

    def settle(self) -> None:
        """Nothing to prepare."""

    def begin(self) -> None:
        """Nothing to start."""

    def finish(self, loss: Tensor) -> None:
        """They are the sums."""

    def all_written(self) -> None:
        """They are."""

    def describe(self) -> dict[str, Any]:
        """Nothing to say."""
        return {}


@dataclass
class _Bucket:
    """Neighbouring parameters, and how many gradients the current pass owes."""

    parameters: list[nn.Parameter]
    missing: int = 0

    @property
    def nbytes(self) -> int:
        return sum(parameter.nbytes for parameter in self.parameters)


class BucketReduction:
    """All-reduces buckets of gradients in one order on all workers."""

    over_workers: Callable[[Tensor], Any] | None = None
    written: Callable[[int], None] | None = None

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._group = dist.distributed_c10d._get_default_group()
        self._buckets: list[_Bucket] = []
        self._bucket_of: dict[nn.Parameter, _Bucket] = {}
        self._works: list[dist.Work] = []
        # Parameters that have gradients, in the order of their last arrival; numbers are places in
        # the list that was given.
        self._arrivals: dict[int, None] = {}
        for place, parameter in enumerate(self._parameters):
            parameter.register_post_accumulate_grad_hook(partial(self._arrived, place))
        # The next bucket to be sent; None outside a step's last backward pass.
        self._next: int | None = None

    def settle(self) -> None:
        """Makes buckets of the parameters that had gradients, in the order of their arrival."""
        if self._buckets:
            return
        group: list[nn.Parameter] = []
        size = 0
        for place in self._agreed_order():
            parameter = self._parameters[place]
            group.append(parameter)
            size += parameter.nbytes
            if size >= BUCKET_BYTES:
                self._add(group)
                group, size = [], 0
        if group:
            self._add(group)

    def begin(self) -> None:
        """From now on gradients are sent off as they appear."""
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)
        self._next = 0

    def finish(self, loss: Tensor) -> None:
        """Waits for the sums; they are the parameters' gradients then."""
        self._next = None
        self._wait()
        dist.all_reduce(loss)

    def reduce(self, loss: Tensor) -> None:
        """Adds up gradients of a backward pass that is over."""
        for bucket in self._buckets:
            self._send(bucket)
        self.finish(loss)

    def all_written(self) -> None:
        """Each worker has written all."""

    def describe(self) -> dict[str, Any]:
        """Number and size of what is sent each step."""
        return {
            "allReduce": {
                "type": str(self._buckets[0].parameters[0].dtype).removeprefix("torch."),
                "buckets": len(self._buckets),
                "bytes": sum(bucket.nbytes for bucket in self._buckets),
            }
        }

    def _agreed_order(self) -> list[int]:
        """The first worker's order: all must send the same buckets."""
        device = self._parameters[0].device
        order = torch.tensor(list(self._arrivals), dtype=torch.int64, device=device)
        dist.broadcast(order, src=0)
        found: list[int] = order.tolist()
        return found

    def _add(self, parameters: list[nn.Parameter]) -> None:
        bucket = _Bucket(parameters)
        self._buckets.append(bucket)
        for parameter in parameters:
            self._bucket_of[parameter] = bucket

    def _arrived(self, place: int, parameter: Tensor) -> None:
        if not self._buckets:
            self._arrivals.pop(place, None)
            self._arrivals[place] = None
        if self._next is None:
            return
        assert isinstance(parameter, nn.Parameter)
        self._bucket_of[parameter].missing -= 1
        # Workers must send the same buckets in the same order, whatever is ready first.
        while self._next < len(self._buckets) and self._buckets[self._next].missing == 0:
            self._send(self._buckets[self._next])
            self._next += 1

    def _send(self, bucket: _Bucket) -> None:
        self._send_bucket({p: p.grad for p in bucket.parameters if p.grad is not None})

    def _send_bucket(self, gradients: dict[nn.Parameter, Tensor]) -> None:
        options = AllreduceCoalescedOptions()
        options.asyncOp = True
        self._works.append(self._group.allreduce_coalesced(list(gradients.values()), options))

    def _wait(self) -> None:
        for work in self._works:
            work.wait()
        self._works.clear()
