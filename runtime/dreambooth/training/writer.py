"""Checkpoints written while training goes on."""

import threading
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dreambooth.training.checkpoint import Checkpoint, CheckpointStore

# What a checkpoint is taken to cost: a network volume writes about this much a second. Measured
# speeds would make it depend on chance which checkpoints there are.
BYTES_PER_SECOND = 4e8


class BackgroundWriter:
    """Publishes checkpoints from a thread, one at a time.

    The state is copied before `submit` returns: on the device where there is room for a second
    one, which takes milliseconds, else to the host.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def submit(self, checkpoint: Checkpoint, keep: set[int]) -> None:
        """Writes `checkpoint`, and then removes all others but those of `keep`.

        Waits for the one before it.

        Raises:
            DreamBoothError: If that one failed.
        """
        self.wait()
        state, copied = _copy(checkpoint)
        self._thread = threading.Thread(
            target=self._write, args=(state, keep, copied), name="checkpoint", daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        """Raises what a write has failed with, if one has."""
        if self._failure is not None:
            self.wait()

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
            DreamBoothError: If it failed.
        """
        self.close()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Waits, whatever comes of it: for when nobody needs the checkpoint any more."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(
        self, checkpoint: Checkpoint, keep: set[int], copied: "torch.cuda.Event | None"
    ) -> None:
        try:
            if copied is None:
                self._publish(checkpoint, keep)
                return
            copied.synchronize()
            # Copies to the host queue up beside the training steps, not behind them.
            with torch.cuda.stream(torch.cuda.Stream(_device(checkpoint))):
                self._publish(checkpoint, keep)
        except BaseException as error:
            # Raised where training looks next.
            self._failure = error

    def _publish(self, checkpoint: Checkpoint, keep: set[int]) -> None:
        self._store.save(checkpoint)
        self._store.keep_only({checkpoint.step, *keep})


def worth_writing(state_bytes: int, seconds_of_work: float) -> bool:
    """Whether a checkpoint protects more work than writing it takes."""
    return seconds_of_work >= state_bytes / BYTES_PER_SECOND


def _copy(checkpoint: Checkpoint) -> tuple[Checkpoint, "torch.cuda.Event | None"]:
    """A copy of the state, and an event for when it is complete if it is on a GPU."""
    tensors = [*checkpoint.weights.values(), *checkpoint.moments.values()]
    if not any(tensor.is_cuda for tensor in tensors):
        return _mapped(checkpoint, torch.clone), None
    try:
        copy = _mapped(checkpoint, torch.clone)
    except torch.OutOfMemoryError:
        return _mapped(checkpoint, Tensor.cpu), None
    event = torch.cuda.Event()
    event.record()
    return copy, event


def _mapped(checkpoint: Checkpoint, copy: Callable[[Tensor], Tensor]) -> Checkpoint:
    with torch.no_grad():
        return replace(
            checkpoint,
            weights={name: copy(tensor) for name, tensor in checkpoint.weights.items()},
            moments={name: copy(tensor) for name, tensor in checkpoint.moments.items()},
            meta={**checkpoint.meta, "losses": list(checkpoint.meta["losses"])},
        )


def _device(checkpoint: Checkpoint) -> torch.device:
    return next(t.device for t in checkpoint.weights.values() if t.is_cuda)
