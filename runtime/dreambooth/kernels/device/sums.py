"""Sums over rows: bias gradients, and the last step of the norms' weight gradients.

In a fixed order, so that the same input gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from dreambooth.kernels.device.launching import Kernel

ROWS, COLUMNS = 64, 32
# Of a tile of column_sums; rows that one program sums alone; programs wanted for more.
TALL, WIDE = 64, 64
FEW_ROWS = 512
PROGRAMS = 528


@Kernel
def _sum_rows(shifts, scales, dweight, dbias, R, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < C
    shift = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    scale = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for start in range(0, R, ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row < R)[:, None] & inside[None, :]
        place = row[:, None] * C + columns[None, :]
        shift += tl.load(shifts + place, mask=mask, other=0.0)
        scale += tl.load(scales + place, mask=mask, other=0.0)
    tl.store(dbias + columns, tl.sum(shift, axis=0).to(dbias.dtype.element_ty), mask=inside)
    tl.store(dweight + columns, tl.sum(scale, axis=0).to(dweight.dtype.element_ty), mask=inside)


def sum_rows(shifts: Tensor, scales: Tensor, dweight: Tensor, dbias: Tensor) -> None:
    """Sums `[R, C]` over R: shifts into dbias, scales into dweight, both `[C]`."""
    rows, columns = shifts.shape
    height = min(ROWS, triton.next_power_of_2(rows))
    _sum_rows[(triton.cdiv(columns, COLUMNS),)](
        shifts, scales, dweight, dbias, rows, columns, ROWS=height, COLUMNS=COLUMNS, num_warps=4
    )


@Kernel
def _column_sums(x, sums, R, C, SPAN, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.program_id(0) * SPAN
    total = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for start in range(first, tl.minimum(first + SPAN, R), ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row < R)[:, None] & (columns < C)[None, :]
        place = row.to(tl.int64)[:, None] * C + columns[None, :]
        total += tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    result = tl.sum(total, axis=0).to(sums.dtype.element_ty)
    tl.store(sums + tl.program_id(0) * C + columns, result, mask=columns < C)


def column_sums(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums contiguous `[R, C]` over R in fp32; the result `[C]` is of the given type."""
    rows, columns = x.shape
    parts = 1
    if rows > FEW_ROWS:
        wanted = max(1, PROGRAMS // triton.cdiv(columns, WIDE))
        parts = min(triton.cdiv(rows, TALL), wanted, FEW_ROWS)
    if parts == 1:
        return _sums_of_parts(x, 1, dtype).view(columns)
    return _sums_of_parts(_sums_of_parts(x, parts, torch.float32), 1, dtype).view(columns)


def _sums_of_parts(x: Tensor, parts: int, dtype: torch.dtype) -> Tensor:
    rows, columns = x.shape
    span = TALL * triton.cdiv(rows, TALL * parts)
    parts = triton.cdiv(rows, span)
    sums = x.new_empty((parts, columns), dtype=dtype)
    _column_sums[(parts, triton.cdiv(columns, WIDE))](
        x, sums, rows, columns, span, ROWS=TALL, COLUMNS=WIDE, num_warps=4
    )
    return sums
