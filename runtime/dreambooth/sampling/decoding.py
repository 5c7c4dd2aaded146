"""From latents to pictures; on a GPU beside the next batch's denoising.

A GPU decodes on a stream of its own, a few pictures at a time, into memory that the host can read
at once; nobody waits until the pictures are asked for.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreambooth.models.family import ModelFamily


class Checker(Protocol):
    """What looks at pictures on the device; a `SafetyChecker` does."""

    def flags(self, pictures: Tensor) -> Tensor:
        """Which of `pictures` `[B, H, W, 3]` uint8 nobody shall see, `[B]`."""


class Drawn(NamedTuple):
    """Pictures `[B, H, W, 3]` RGB, and which of them are flagged, `[B]`; none without a checker."""

    pictures: NDArray[np.uint8]
    flagged: NDArray[np.bool_]

    def first(self, count: int) -> "Drawn":
        """The first `count` of them."""
        return Drawn(self.pictures[:count], self.flagged[:count])


class Developing:
    """Pictures that are being decoded."""

    def __init__(
        self, pictures: Tensor, done: torch.cuda.Event | None, flagged: Tensor | None = None
    ) -> None:
        """Both are in the host's memory, and whole when `done` has happened."""
        self._pictures = pictures
        self._done = done
        self._flagged = torch.zeros(len(pictures), dtype=torch.bool) if flagged is None else flagged

    def take(self) -> Drawn:
        """The pictures; waits for them."""
        if self._done is not None:
            self._done.synchronize()
        return Drawn(self._pictures.numpy(), self._flagged.numpy())


class Decoder:
    """Decodes on the device that asked for it, before it does anything else."""

    def __init__(self, model: ModelFamily, checker: Checker | None = None) -> None:
        self._model = model
        self._checker = checker

    def develop(self, latents: Tensor) -> Developing:
        """Pictures of scaled latents `[B, C, H/f, W/f]`."""
        pictures = _to_uint8(self._model.decode(latents))
        flagged = self._checker.flags(pictures).cpu() if self._checker else None
        return Developing(pictures.cpu(), None, flagged)


class StreamDecoder:
    """Decodes on a stream of its own while the device goes on."""

    def __init__(
        self,
        model: ModelFamily,
        device: torch.device,
        together: int,
        checker: Checker | None = None,
    ) -> None:
        """`together` is how many pictures are decoded at once; fewer if memory is short."""
        self.together = together
        self._model = model
        self._checker = checker
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def develop(self, latents: Tensor) -> Developing:
        """Pictures of scaled latents `[B, C, H/f, W/f]`, which are computed by then or later.

        Raises:
            torch.cuda.OutOfMemoryError: If there is no room for a single one.
        """
        while True:
            try:
                return self._develop(latents)
            except torch.cuda.OutOfMemoryError:
                if self.together == 1:
                    raise
            # Out of the handler, whose exception keeps what was computed.
            self.together //= 2
            torch.cuda.empty_cache()

    def _develop(self, latents: Tensor) -> Developing:
        side = self._model.resolution
        pictures = torch.empty((len(latents), side, side, 3), dtype=torch.uint8, pin_memory=True)
        flagged = None
        if self._checker is not None:
            flagged = torch.empty(len(latents), dtype=torch.bool, pin_memory=True)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        # Freed by the other stream's code, the memory must not be reused before this one is done.
        latents.record_stream(self._stream)
        with torch.cuda.stream(self._stream):
            for start in starts(len(latents), self.together):
                part = latents[start : start + self.together]
                decoded = _to_uint8(self._model.decode(part))
                pictures[start : start + len(part)].copy_(decoded, non_blocking=True)
                if self._checker is not None and flagged is not None:
                    found = self._checker.flags(decoded)
                    flagged[start : start + len(part)].copy_(found, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
        return Developing(pictures, done, flagged)


def starts(count: int, together: int) -> list[int]:
    """Where parts of `together` begin that cover `count`; the last may overlap the one before.

    So all are of one size, if there are enough: each size costs a second when it is new.
    """
    return [min(start, max(0, count - together)) for start in range(0, count, together)]


def _to_uint8(pixels: Tensor) -> Tensor:
    """`[B, H, W, 3]` of `[B, 3, H, W]` in [-1, 1]."""
    scaled = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous()
