"""Group norm of images so small that a program holds all of one group: one read, one launch.

The deep levels of a UNet (16 x 16 pixels and fewer) have more than half of its norms, and there a
launch takes longer than the work.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from dreambooth.kernels.device.launching import Kernel
from dreambooth.kernels.device.sums import sum_rows

# Elements of a group, with both sides rounded up to powers of two: what registers hold.
LARGEST = 16384


@triton.jit
def _place(P, UNITS, C, FACTOR: tl.constexpr, PIXELS: tl.constexpr, WIDTH: tl.constexpr):
    """Of this program's group: channels, their number, offsets of the elements and their mask.

    The number comes in units of FACTOR, so that the compiler knows what divides it and reads as
    wide as that allows.
    """
    D = UNITS * FACTOR
    lanes = tl.arange(0, WIDTH)
    pixels = tl.arange(0, PIXELS)
    channels = tl.program_id(0) * D + lanes
    mask = (pixels < P)[:, None] & (lanes < D)[None, :]
    offsets = tl.program_id(1).to(tl.int64) * P * C + (pixels[:, None] * C + channels[None, :])
    return channels, lanes < D, D, offsets, mask


@triton.jit
def _load(x, shift, channels, inside, offsets, mask, C, SHIFT: tl.constexpr):
    values = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32)
    if SHIFT:
        more = tl.load(shift + tl.program_id(1) * C + channels, mask=inside, other=0.0)
        values = tl.where(mask, values + more.to(tl.float32)[None, :], 0.0)
    return values


@Kernel
def _forward(
    x,
    shift,
    y,
    weight,
    bias,
    mean_out,
    rstd_out,
    P,
    C,
    UNITS,
    eps,
    SILU: tl.constexpr,
    SHIFT: tl.constexpr,
    FACTOR: tl.constexpr,
    PIXELS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    channels, inside, D, offsets, mask = _place(P, UNITS, C, FACTOR, PIXELS, WIDTH)
    values = _load(x, shift, channels, inside, offsets, mask, C, SHIFT)
    size = P * 1.0 * D
    mean = tl.sum(tl.sum(values, axis=1), axis=0) / size
    apart = tl.where(mask, values - mean, 0.0)
    variance = tl.sum(tl.sum(apart * apart, axis=1), axis=0) / size
    rstd = 1.0 / tl.sqrt(variance + eps)
    scale = tl.load(weight + channels, mask=inside, other=0.0).to(tl.float32)
    base = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    values = apart * rstd * scale[None, :] + base[None, :]
    if SILU:
        values = values / (1.0 + tl.exp(-values))
    tl.store(y + offsets, values.to(y.dtype.element_ty), mask=mask)
    place = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(mean_out + place, mean)
    tl.store(rstd_out + place, rstd)


@Kernel
def _backward(
    x,
    shift,
    dy,
    dx,
    weight,
    bias,
    mean,
    rstd,
    shifts,
    scales,
    dshift,
    P,
    C,
    UNITS,
    SILU: tl.constexpr,
    SHIFT: tl.constexpr,
    FACTOR: tl.constexpr,
    PIXELS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    channels, inside, D, offsets, mask = _place(P, UNITS, C, FACTOR, PIXELS, WIDTH)
    place = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    center, spread = tl.load(mean + place), tl.load(rstd + place)
    scale = tl.load(weight + channels, mask=inside, other=0.0).to(tl.float32)[None, :]
    base = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)[None, :]
    xhat = (_load(x, shift, channels, inside, offsets, mask, C, SHIFT) - center) * spread
    dz = tl.load(dy + offsets, mask=mask, other=0.0).to(tl.float32)
    if SILU:
        z = xhat * scale + base
        gate = 1.0 / (1.0 + tl.exp(-z))
        dz = dz * gate * (1.0 + z * (1.0 - gate))
    of_channel = tl.program_id(1) * C + channels
    tl.store(shifts + of_channel, tl.sum(dz, axis=0), mask=inside)
    tl.store(scales + of_channel, tl.sum(dz * xhat, axis=0), mask=inside)
    dz = dz * scale
    size = P * 1.0 * D
    even = tl.sum(tl.sum(dz, axis=1), axis=0) / size
    along = tl.sum(tl.sum(dz * xhat, axis=1), axis=0) / size
    result = tl.where(mask, spread * (dz - even - xhat * along), 0.0)
    tl.store(dx + offsets, result.to(dx.dtype.element_ty), mask=mask)
    if SHIFT:
        total = tl.sum(result, axis=0)
        tl.store(dshift + of_channel, total.to(dshift.dtype.element_ty), mask=inside)


def fits(pixels: int, channels: int, groups: int) -> bool:
    """Whether a group of such an image fits in one program."""
    width = channels // groups
    elements = triton.next_power_of_2(pixels) * triton.next_power_of_2(width)
    # Runs of channels that can't be read 8 bytes at a time cost more than a launch saves.
    return bool(elements <= (LARGEST if width % 4 == 0 else LARGEST // 4))


def _tile(pixels: int, width: int) -> dict[str, int]:
    rows, lanes = triton.next_power_of_2(pixels), triton.next_power_of_2(width)
    warps = 4 if rows * lanes <= 2048 else 8 if rows * lanes <= 8192 else 16
    return {"FACTOR": math.gcd(width, 8), "PIXELS": rows, "WIDTH": lanes, "num_warps": warps}


def forward(
    x: Tensor,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `dreambooth.kernels.device.group_norm.forward`."""
    images, pixels, channels = x.shape
    tile = _tile(pixels, channels // groups)
    units = channels // groups // tile["FACTOR"]
    mean, rstd = x.new_empty((2, images, groups), dtype=torch.float32)
    y = torch.empty_like(x)
    _forward[(groups, images)](
        x, x if shift is None else shift, y, weight, bias, mean, rstd, pixels, channels, units,
        eps, SILU=silu, SHIFT=shift is not None, **tile,
    )  # fmt: skip
    return y, mean, rstd


def backward(
    dy: Tensor,
    x: Tensor,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    groups: int,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As `dreambooth.kernels.device.group_norm.backward`."""
    images, pixels, channels = x.shape
    tile = _tile(pixels, channels // groups)
    units = channels // groups // tile["FACTOR"]
    shifts, scales = x.new_empty((2, images, channels), dtype=torch.float32)
    dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
    dshift = None if shift is None else torch.empty_like(shift)
    _backward[(groups, images)](
        x, x if shift is None else shift, dy, dx, weight, bias, mean, rstd, shifts, scales,
        shifts if dshift is None else dshift, pixels, channels, units,
        SILU=silu, SHIFT=shift is not None, **tile,
    )  # fmt: skip
    sum_rows(shifts, scales, dweight, dbias)
    return dx, dweight, dbias, dshift
