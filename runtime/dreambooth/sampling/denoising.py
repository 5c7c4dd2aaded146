"""One guided call of the denoiser, as it is or replayed from a CUDA graph.

With few pictures in a batch a GPU waits for the host, which launches some thousand kernels a call.
A graph is launched at once. It is recorded once for every shape and replayed for all steps,
batches and prompts; it computes what the kernels compute one by one, bit for bit.
"""

import logging
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from dreambooth.models.conditioning import Conditioning
from dreambooth.models.family import ModelFamily
from dreambooth.spans import Activity, span

_log = logging.getLogger(__name__)

# What prepares a call of the denoiser; takes what a `Denoiser` takes, but the guidance.
Rehearse = Callable[[Tensor, Tensor, Conditioning], None]
# What a library does once (choose kernels, take workspaces) is done after so many calls.
WARM_UPS = 2


class Denoiser(Protocol):
    """Guided output of the model for latents at one timestep."""

    def __call__(
        self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float
    ) -> Tensor:
        """The output `[B, C, H/f, W/f]` float32.

        Args:
            latents: `[B, C, H/f, W/f]`, scaled as the scheduler asks.
            timestep: Scalar on the device.
            conditioning: Of the prompts, `B` rows; of the negative prompts before them, if guided.
            guidance: Scale; without effect where `conditioning` has `B` rows.
        """


class EagerDenoiser:
    """Calls the model."""

    def __init__(self, model: ModelFamily) -> None:
        self._model = model

    def __call__(
        self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float
    ) -> Tensor:
        """See `Denoiser`. Both halves of guidance share one call."""
        rows = len(conditioning)
        guided = rows > len(latents)
        doubled = torch.cat([latents, latents]) if guided else latents
        output = self._model.predict(
            doubled.to(conditioning.dtype), timestep.expand(rows), conditioning
        ).float()
        if not guided:
            return output
        unconditional, conditional = output.chunk(2)
        return unconditional + guidance * (conditional - unconditional)


class GraphedDenoiser:
    """Replays a graph for each shape it has been called with; without one it can record, calls."""

    def __init__(self, denoiser: Denoiser, rehearse: Rehearse | None = None) -> None:
        """`rehearse` is called before a shape is computed for the first time."""
        self._denoiser = denoiser
        self._rehearse = rehearse
        self._graphs: dict[tuple[object, ...], _Graph] = {}
        self._recording = True

    def __call__(
        self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float
    ) -> Tensor:
        """See `Denoiser`."""
        if not self._recording:
            return self._denoiser(latents, timestep, conditioning, guidance)
        shape = (latents.shape, timestep.dtype, conditioning.tokens.shape, guidance)
        if shape not in self._graphs:
            graph = self._record(latents, timestep, conditioning, guidance)
            if graph is None:
                return self._denoiser(latents, timestep, conditioning, guidance)
            self._graphs[shape] = graph
        return self._graphs[shape].replay(latents, timestep, conditioning)

    def release(self) -> None:
        """Gives back the memory of all graphs; they are recorded again when they are needed."""
        self._graphs.clear()

    def _record(
        self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float
    ) -> "_Graph | None":
        # Graphs that are never replayed at the same time can share their memory.
        pool = next((graph.pool for graph in self._graphs.values()), None)
        graph = _Graph(latents, timestep, conditioning, pool)
        if self._rehearse is not None:
            self._rehearse(latents, timestep, conditioning)
        with span(Activity.FIRST_RUN):
            graph.warm_up(self._denoiser, guidance)
        with span(Activity.CAPTURE):
            try:
                graph.record(self._denoiser, guidance)
            except RuntimeError as error:
                self._recording = False
                _log.warning("drawing goes on without CUDA graphs: %s", error)
                return None
        return graph


class _Graph:
    """One recorded call, and the memory it reads and writes."""

    def __init__(
        self,
        latents: Tensor,
        timestep: Tensor,
        conditioning: Conditioning,
        pool: Any,
    ) -> None:
        self._device = latents.device
        self._latents = latents.clone()
        self._timestep = timestep.clone()
        self._conditioning = conditioning.clone()
        self._current: Conditioning | None = conditioning
        self._graph = torch.cuda.CUDAGraph()
        self._pool = pool
        self._output: Tensor | None = None

    @property
    def pool(self) -> Any:
        """What torch calls the memory that the graph computes in."""
        return self._graph.pool()

    def warm_up(self, denoiser: Denoiser, guidance: float) -> None:
        """Calls it beside everything else, as is asked for before a capture."""
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                denoiser(self._latents, self._timestep, self._conditioning, guidance)
        torch.cuda.current_stream(self._device).wait_stream(aside)

    def record(self, denoiser: Denoiser, guidance: float) -> None:
        """Captures the call."""
        with torch.cuda.graph(self._graph, pool=self._pool, capture_error_mode="thread_local"):
            self._output = denoiser(self._latents, self._timestep, self._conditioning, guidance)

    def replay(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The output for these, in memory of its own."""
        self._latents.copy_(latents)
        self._timestep.copy_(timestep)
        if conditioning is not self._current:
            conditioning.copy_into(self._conditioning)
            self._current = conditioning
        self._graph.replay()
        if self._output is None:
            raise RuntimeError("the graph has not been recorded")
        # Schedulers keep outputs of earlier steps.
        return self._output.clone()
