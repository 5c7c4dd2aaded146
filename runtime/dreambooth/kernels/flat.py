"""One flat fp32 buffer for many parameters' values, and each parameter's view of it.

A parameter's slice holds its elements in the parameter's own memory order (channels_last weights
as they are), so that element i of the slice and element i of the parameter's storage are the same
element, and a kernel walks both as plain arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# In elements: every slice of an fp32 or bf16 buffer begins at a multiple of 128 bytes.
ALIGNMENT = 64


@dataclass(frozen=True)
class FlatLayout:
    """Where each parameter lies in a flat buffer.

    Attributes:
        shapes: Of the parameters.
        strides: Of the parameters, in elements.
        numels: Of the parameters.
        offsets: Of their slices, in elements.
        size: Of the buffer, in elements.
    """

    shapes: tuple[torch.Size, ...]
    strides: tuple[tuple[int, ...], ...]
    numels: tuple[int, ...]
    offsets: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, parameters: Sequence[Tensor]) -> Self:
        """The layout for these parameters.

        Raises:
            ValueError: One of them has gaps or overlaps in memory.
        """
        offsets, end = [], 0
        for index, parameter in enumerate(parameters):
            if not _is_dense(parameter):
                raise ValueError(
                    f"parameter {index} of shape {tuple(parameter.shape)} and strides "
                    f"{parameter.stride()} is not dense in memory; make it contiguous first"
                )
            offsets.append(end)
            end += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
        return cls(
            shapes=tuple(parameter.shape for parameter in parameters),
            strides=tuple(parameter.stride() for parameter in parameters),
            numels=tuple(parameter.numel() for parameter in parameters),
            offsets=tuple(offsets),
            size=end,
        )

    def views(self, buffer: Tensor) -> list[Tensor]:
        """The slices of a buffer, each with its parameter's shape and strides."""
        return [
            buffer.as_strided(shape, stride, buffer.storage_offset() + offset)
            for shape, stride, offset in zip(self.shapes, self.strides, self.offsets, strict=True)
        ]

    def fits(self, index: int, tensor: Tensor) -> bool:
        """Whether a tensor has the shape and memory order of a parameter."""
        if tensor.shape != self.shapes[index]:
            return False
        # The stride of a dimension of size one says nothing.
        ours = self.strides[index]
        return all(
            size == 1 or a == b
            for size, a, b in zip(tensor.shape, tensor.stride(), ours, strict=True)
        )


def _is_dense(tensor: Tensor) -> bool:
    expected = 1
    dimensions = zip(tensor.stride(), tensor.shape, strict=True)
    for stride, size in sorted(pair for pair in dimensions if pair[1] != 1):
        if stride != expected:
            return False
        expected *= size
    return True
