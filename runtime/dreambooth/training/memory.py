"""How a step is fitted into a device's memory.

Plans go from fast to small. Which one fits is found by trying: what activations, workspaces and
fragmentation take depends on kernels that nobody can foresee, and a trial costs a second or two,
on small devices only.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

# Cached latents may take this share of what is free; more of them stay with the host.
LATENTS_SHARE = 0.1


class Activations(StrEnum):
    """What becomes of what the backward pass needs."""

    KEPT = "kept"
    RECOMPUTED = "recomputed"


class Place(StrEnum):
    """Whose memory."""

    DEVICE = "device"
    HOST = "host"


@dataclass(frozen=True)
class MemoryPlan:
    """One way to take a step.

    Attributes:
        batches: Micro-batches whose gradients are added up.
        pairs: Pairs in each.
        activations: Kept from forward to backward, or computed again there (gradient
            checkpointing: a third more arithmetic).
        latents: Where the encoded pictures are.
    """

    batches: int
    pairs: int
    activations: Activations
    latents: Place

    def to_json(self) -> dict[str, Any]:
        """JSON-able, in the words of the job's record."""
        return {
            "microBatches": self.batches,
            "pairsAtOnce": self.pairs,
            "activations": self.activations.value,
            "latents": self.latents.value,
        }


def memory_plans(pairs: int, latents: Place) -> list[MemoryPlan]:
    """Plans for `pairs` pairs a step and worker, fast ones first.

    Micro-batches are equal, so that each counts the same; recomputing comes last, when a single
    pair is too much.
    """
    sizes = [size for size in range(pairs, 0, -1) if pairs % size == 0]
    chosen, limit = [], pairs
    for size in sizes:
        if size <= limit:
            chosen.append(size)
            limit = max(1, size // 2)
    plans = [MemoryPlan(pairs // size, size, Activations.KEPT, latents) for size in chosen]
    return [*plans, MemoryPlan(pairs, 1, Activations.RECOMPUTED, latents)]


def latents_place(device: torch.device, cached: Iterable[Tensor]) -> Place:
    """Where cached latents should be."""
    if device.type != "cuda":
        return Place.DEVICE
    needed = sum(tensor.nbytes for tensor in cached)
    return Place.DEVICE if needed <= LATENTS_SHARE * free_bytes(device) else Place.HOST


def free_bytes(device: torch.device) -> int:
    """What this process may still allocate on a GPU, its own cap considered."""
    with torch.cuda.device(device):
        free, total = torch.cuda.mem_get_info()
        reserved = torch.cuda.memory_reserved()
        allocated = torch.cuda.memory_allocated()
        cap = int(torch.cuda.get_per_process_memory_fraction() * total)
    return min(free + reserved, cap) - allocated


def state_bytes(trained: int, frozen: int, working: torch.dtype) -> int:
    """What weights, gradients, masters and moments take, for so many parameters.

    Low-precision weights and gradients of what is trained, float32 masters and two moments beside
    them; what is frozen has its weights alone.
    """
    if working == torch.float32:
        return 16 * trained + 4 * frozen
    return (2 * working.itemsize + 12) * trained + working.itemsize * frozen


def fits_beside_others(state: int, pairs: int, free: int) -> bool:
    """Whether a training finds all it needs in what others leave it, whatever they do meanwhile.

    Generous, for who is wrong here trains slowly: activations of Stable Diffusion take 1.5 GiB a
    pair, and the others may take some more.

    Args:
        state: As `state_bytes` counts it.
        pairs: Of one step.
        free: Bytes that nobody holds.
    """
    return 2 * state + pairs * 2 * 2**30 + 8 * 2**30 <= free
