"""The last step of weight gradients: sums over what many programs have left."""

import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 64, 32


@triton.jit
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
