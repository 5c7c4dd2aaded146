"""What a prompt is to a denoiser."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Encoded prompts, one a row.

    Attributes:
        tokens: Embeddings of the text's tokens, `[B, L, D]`.
        pooled: One embedding of each whole text, `[B, P]`; None where the family has none.
    """

    tokens: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def dtype(self) -> torch.dtype:
        """Of the tokens' embeddings."""
        return self.tokens.dtype

    @staticmethod
    def cat(parts: "Sequence[Conditioning]") -> "Conditioning":
        """The rows of all `parts`, which are of one family, in their order."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditioning(
            torch.cat([part.tokens for part in parts]), torch.cat(pooled) if pooled else None
        )

    def repeat_interleave(self, repeats: int) -> "Conditioning":
        """Each row `repeats` times in a row."""
        pooled = None if self.pooled is None else self.pooled.repeat_interleave(repeats, dim=0)
        return Conditioning(self.tokens.repeat_interleave(repeats, dim=0), pooled)

    def to(
        self, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Conditioning":
        """On `device` and of `dtype`; None keeps what it is."""
        pooled = None if self.pooled is None else self.pooled.to(device=device, dtype=dtype)
        return Conditioning(self.tokens.to(device=device, dtype=dtype), pooled)

    def detach(self) -> "Conditioning":
        """Without what led to it."""
        pooled = None if self.pooled is None else self.pooled.detach()
        return Conditioning(self.tokens.detach(), pooled)

    def clone(self) -> "Conditioning":
        """In memory of its own, as the buffers of a CUDA graph are."""
        pooled = None if self.pooled is None else self.pooled.clone()
        return Conditioning(self.tokens.clone(), pooled)

    def copy_into(self, buffers: "Conditioning") -> None:
        """Writes the values to `buffers`, which have the same shapes and stay where they are."""
        buffers.tokens.copy_(self.tokens)
        if self.pooled is not None and buffers.pooled is not None:
            buffers.pooled.copy_(self.pooled)
