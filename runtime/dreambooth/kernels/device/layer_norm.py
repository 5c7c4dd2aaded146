"""The kernels of `dreambooth.kernels.layer_norm`: a program holds whole rows `[R, C]`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from dreambooth.kernels.device.launching import Kernel
from dreambooth.kernels.device.sums import sum_rows

# Elements of a tile, and programs of the backward, which sum weight gradients over many tiles.
TILE = 4096
PROGRAMS = 264
WARPS = 8


@triton.jit
def _place(block, R, C, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    rows = block * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    mask = (rows < R)[:, None] & (columns < C)[None, :]
    offsets = rows.to(tl.int64)[:, None] * C + columns[None, :]
    return rows, columns, offsets, mask


@Kernel
def _forward(
    x,
    residual,
    weight,
    bias,
    h,
    y,
    mean_out,
    rstd_out,
    R,
    C,
    eps,
    ADD: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    rows, columns, offsets, mask = _place(tl.program_id(0), R, C, ROWS, WIDTH)
    values = tl.load(x + offsets, mask=mask, other=0.0)
    if ADD:
        more = tl.load(residual + offsets, mask=mask, other=0.0)
        values = (values.to(tl.float32) + more.to(tl.float32)).to(h.dtype.element_ty)
        tl.store(h + offsets, values, mask=mask)
    # Of the sum as it is stored: the backward reads it from there.
    values = values.to(tl.float32)
    mean = tl.sum(values, axis=1) / C
    apart = tl.where(mask, values - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(apart * apart, axis=1) / C + eps)
    scale = tl.load(weight + columns, mask=columns < C, other=0.0).to(tl.float32)
    base = tl.load(bias + columns, mask=columns < C, other=0.0).to(tl.float32)
    result = apart * rstd[:, None] * scale[None, :] + base[None, :]
    tl.store(y + offsets, result.to(y.dtype.element_ty), mask=mask)
    tl.store(mean_out + rows, mean, mask=rows < R)
    tl.store(rstd_out + rows, rstd, mask=rows < R)


@Kernel
def _backward(
    dy,
    dh,
    h,
    weight,
    mean,
    rstd,
    dx,
    shifts,
    scales,
    R,
    C,
    ADD: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    columns = tl.arange(0, WIDTH)
    scale = tl.load(weight + columns, mask=columns < C, other=0.0).to(tl.float32)
    shift_sum = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    scale_sum = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(R, ROWS), tl.num_programs(0)):
        rows, _, offsets, mask = _place(block, R, C, ROWS, WIDTH)
        center = tl.load(mean + rows, mask=rows < R, other=0.0)[:, None]
        spread = tl.load(rstd + rows, mask=rows < R, other=0.0)[:, None]
        values = tl.load(h + offsets, mask=mask, other=0.0).to(tl.float32)
        slope = tl.load(dy + offsets, mask=mask, other=0.0).to(tl.float32)
        xhat = tl.where(mask, (values - center) * spread, 0.0)
        shift_sum += slope
        scale_sum += slope * xhat
        slope = slope * scale[None, :]
        even = tl.sum(slope, axis=1)[:, None] / C
        along = tl.sum(slope * xhat, axis=1)[:, None] / C
        result = spread * (slope - even - xhat * along)
        if ADD:
            result += tl.load(dh + offsets, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx + offsets, result.to(dx.dtype.element_ty), mask=mask)
    place = tl.program_id(0) * C + columns
    tl.store(shifts + place, tl.sum(shift_sum, axis=0), mask=columns < C)
    tl.store(scales + place, tl.sum(scale_sum, axis=0), mask=columns < C)


def _tile(columns: int) -> dict[str, int]:
    width = triton.next_power_of_2(columns)
    return {"ROWS": max(1, TILE // width), "WIDTH": width, "num_warps": WARPS}


def forward(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum `h` (or `x` itself), its normalized rows, and each row's mean and rstd, fp32."""
    rows, columns = x.shape
    tile = _tile(columns)
    h = x if residual is None else torch.empty_like(x)
    y = torch.empty_like(x)
    mean, rstd = x.new_empty((2, rows), dtype=torch.float32)
    _forward[(triton.cdiv(rows, tile["ROWS"]),)](
        x, x if residual is None else residual, weight, bias, h, y, mean, rstd, rows, columns,
        eps, ADD=residual is not None, **tile,
    )  # fmt: skip
    return h, y, mean, rstd


def backward(
    dy: Tensor, dh: Tensor | None, h: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `h`, which is what was added's too, of weight and of bias."""
    rows, columns = h.shape
    tile = _tile(columns)
    programs = min(PROGRAMS, triton.cdiv(rows, tile["ROWS"]))
    shifts, scales = h.new_empty((2, programs, columns), dtype=torch.float32)
    dx = torch.empty_like(h)
    dweight, dbias = torch.empty_like(weight), torch.empty_like(weight)
    _backward[(programs,)](
        dy, dy if dh is None else dh, h, weight, mean, rstd, dx, shifts, scales, rows, columns,
        ADD=dh is not None, **tile,
    )  # fmt: skip
    sum_rows(shifts, scales, dweight, dbias)
    return dx, dweight, dbias
