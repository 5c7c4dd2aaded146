"""The kernels of `dreambooth.kernels.group_norm`.

All tensors are rows of channels, `[N, P, C]` with P pixels, as channels_last images lie in memory.
A tile is [pixels, 64 channels] whatever the groups are: sums are made per channel, since 10 to 80
channels a group fit no power of two, and brought together per group by a small kernel of its own.
No atomics: the same input gives the same bits.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from dreambooth.kernels.device import small_group_norm
from dreambooth.kernels.device.launching import Kernel

# 64 bf16 channels are one full line of 128 bytes.
CHANNELS = 64
# What one round of programs should at least be, to keep all multiprocessors of a large GPU busy.
ENOUGH_PROGRAMS = 528


@triton.jit
def _tile(P, C, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """The offsets of this program's tile, its mask and its channels."""
    block, part, image = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    pixels = block * PIXELS + tl.arange(0, PIXELS)
    channels = part * CHANNELS + tl.arange(0, CHANNELS)
    mask = (pixels < P)[:, None] & (channels < C)[None, :]
    offsets = image.to(tl.int64) * P * C + (pixels[:, None] * C + channels[None, :])
    return offsets, mask, channels


@triton.jit
def _load(x, shift, offsets, mask, channels, C, SHIFT: tl.constexpr):
    """A tile in fp32, with what is added to each channel of its image."""
    values = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32)
    if SHIFT:
        place = tl.program_id(2) * C + channels
        more = tl.load(shift + place, mask=channels < C, other=0.0).to(tl.float32)
        values = tl.where(mask, values + more[None, :], 0.0)
    return values


@triton.jit
def _silu_slope(z):
    """The derivative of z * sigmoid(z)."""
    gate = 1.0 / (1.0 + tl.exp(-z))
    return gate * (1.0 + z * (1.0 - gate))


@Kernel
def _partial_moments(
    x,
    shift,
    means,
    squares,
    P,
    C,
    SHIFT: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Per channel of a tile: mean, and sum of squared differences from it."""
    offsets, mask, channels = _tile(P, C, PIXELS, CHANNELS)
    values = _load(x, shift, offsets, mask, channels, C, SHIFT)
    count = tl.minimum(P - tl.program_id(0) * PIXELS, PIXELS).to(tl.float32)
    mean = tl.sum(values, axis=0) / count
    differences = tl.where(mask, values - mean[None, :], 0.0)
    square = tl.sum(differences * differences, axis=0)
    row = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
    tl.store(means + row * C + channels, mean, mask=channels < C)
    tl.store(squares + row * C + channels, square, mask=channels < C)


@Kernel
def _moments(
    means,
    squares,
    mean_out,
    rstd_out,
    P,
    C,
    D,
    blocks,
    eps,
    PIXELS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Mean and 1 / standard deviation of a group, from its channels' parts (Chan et al., 1979)."""
    group, image = tl.program_id(0), tl.program_id(1)
    lanes = tl.arange(0, WIDTH)
    rows = tl.arange(0, ROWS)
    base = image * blocks * C + group * D
    total = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    for start in range(0, blocks, ROWS):
        row = start + rows
        mask = (row < blocks)[:, None] & (lanes < D)[None, :]
        count = tl.minimum(P - row * PIXELS, PIXELS).to(tl.float32)
        part = tl.load(means + base + row[:, None] * C + lanes[None, :], mask=mask, other=0.0)
        total += part * tl.where(row < blocks, count, 0.0)[:, None]
    size = P * 1.0 * D
    mean = tl.sum(tl.sum(total, axis=1), axis=0) / size
    square = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    for start in range(0, blocks, ROWS):
        row = start + rows
        mask = (row < blocks)[:, None] & (lanes < D)[None, :]
        count = tl.minimum(P - row * PIXELS, PIXELS).to(tl.float32)
        place = base + row[:, None] * C + lanes[None, :]
        part = tl.load(means + place, mask=mask, other=0.0)
        inner = tl.load(squares + place, mask=mask, other=0.0)
        apart = part - mean
        square += tl.where(mask, inner + apart * apart * count[:, None], 0.0)
    variance = tl.sum(tl.sum(square, axis=1), axis=0) / size
    place = image * tl.num_programs(0) + group
    tl.store(mean_out + place, mean)
    tl.store(rstd_out + place, 1.0 / tl.sqrt(variance + eps))


@triton.jit
def _channel_values(weight, bias, mean, rstd, channels, C, D, groups):
    """Weight, bias, mean and rstd of each channel of this program's image."""
    inside = channels < C
    place = tl.program_id(2) * groups + channels // D
    return (
        tl.load(weight + channels, mask=inside, other=0.0).to(tl.float32)[None, :],
        tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)[None, :],
        tl.load(mean + place, mask=inside, other=0.0)[None, :],
        tl.load(rstd + place, mask=inside, other=0.0)[None, :],
    )


@Kernel
def _normalize(
    x,
    shift,
    y,
    weight,
    bias,
    mean,
    rstd,
    P,
    C,
    D,
    groups,
    SILU: tl.constexpr,
    SHIFT: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    offsets, mask, channels = _tile(P, C, PIXELS, CHANNELS)
    scale, base, center, spread = _channel_values(weight, bias, mean, rstd, channels, C, D, groups)
    values = _load(x, shift, offsets, mask, channels, C, SHIFT)
    values = (values - center) * spread * scale + base
    if SILU:
        values = values / (1.0 + tl.exp(-values))
    tl.store(y + offsets, values.to(y.dtype.element_ty), mask=mask)


@Kernel
def _partial_gradients(
    x,
    shift,
    dy,
    weight,
    bias,
    mean,
    rstd,
    shifts,
    scales,
    P,
    C,
    D,
    groups,
    SILU: tl.constexpr,
    SHIFT: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Per channel of a tile: the sums of dz (for the bias) and of dz * xhat (for the weight)."""
    offsets, mask, channels = _tile(P, C, PIXELS, CHANNELS)
    scale, base, center, spread = _channel_values(weight, bias, mean, rstd, channels, C, D, groups)
    xhat = (_load(x, shift, offsets, mask, channels, C, SHIFT) - center) * spread
    dz = tl.load(dy + offsets, mask=mask, other=0.0).to(tl.float32)
    if SILU:
        dz = dz * _silu_slope(xhat * scale + base)
    row = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
    place = row * C + channels
    tl.store(shifts + place, tl.sum(dz, axis=0), mask=channels < C)
    tl.store(scales + place, tl.sum(dz * xhat, axis=0), mask=channels < C)


@Kernel
def _gradients(
    shifts,
    scales,
    weight,
    dweight,
    dbias,
    first,
    second,
    images,
    C,
    D,
    blocks,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Of one group: dweight, dbias, and per image the sums of dz and dz * xhat times weight."""
    group = tl.program_id(0)
    lanes = tl.arange(0, WIDTH)
    rows = tl.arange(0, ROWS)
    inside = lanes < D
    scale = tl.load(weight + group * D + lanes, mask=inside, other=0.0).to(tl.float32)
    all_shift = tl.zeros([WIDTH], dtype=tl.float32)
    all_scale = tl.zeros([WIDTH], dtype=tl.float32)
    for image in range(0, images):
        shift = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
        slope = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
        for start in range(0, blocks, ROWS):
            row = start + rows
            mask = (row < blocks)[:, None] & inside[None, :]
            place = (image * blocks + row)[:, None] * C + group * D + lanes[None, :]
            shift += tl.load(shifts + place, mask=mask, other=0.0)
            slope += tl.load(scales + place, mask=mask, other=0.0)
        image_shift = tl.sum(shift, axis=0)
        image_scale = tl.sum(slope, axis=0)
        all_shift += image_shift
        all_scale += image_scale
        place = image * tl.num_programs(0) + group
        tl.store(first + place, tl.sum(image_shift * scale, axis=0))
        tl.store(second + place, tl.sum(image_scale * scale, axis=0))
    place = group * D + lanes
    tl.store(dbias + place, all_shift.to(dbias.dtype.element_ty), mask=inside)
    tl.store(dweight + place, all_scale.to(dweight.dtype.element_ty), mask=inside)


@Kernel
def _input_gradient(
    x,
    shift,
    dy,
    dx,
    weight,
    bias,
    mean,
    rstd,
    first,
    second,
    totals,
    P,
    C,
    D,
    groups,
    SILU: tl.constexpr,
    SHIFT: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    offsets, mask, channels = _tile(P, C, PIXELS, CHANNELS)
    scale, base, center, spread = _channel_values(weight, bias, mean, rstd, channels, C, D, groups)
    size = P * 1.0 * D
    place = tl.program_id(2) * groups + channels // D
    inside = channels < C
    even = tl.load(first + place, mask=inside, other=0.0)[None, :] / size
    along = tl.load(second + place, mask=inside, other=0.0)[None, :] / size
    xhat = (_load(x, shift, offsets, mask, channels, C, SHIFT) - center) * spread
    dz = tl.load(dy + offsets, mask=mask, other=0.0).to(tl.float32)
    if SILU:
        dz = dz * _silu_slope(xhat * scale + base)
    result = spread * (dz * scale - even - xhat * along)
    tl.store(dx + offsets, result.to(dx.dtype.element_ty), mask=mask)
    if SHIFT:
        row = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
        total = tl.sum(tl.where(mask, result, 0.0), axis=0)
        tl.store(totals + row * C + channels, total, mask=inside)


@dataclass(frozen=True)
class _Plan:
    """How rows `[N, P, C]` are cut into tiles."""

    images: int
    pixels: int
    channels: int
    groups: int

    @property
    def size(self) -> int:
        """Pixels of a tile: more where that still leaves work for all multiprocessors."""
        parts = self.images * triton.cdiv(self.channels, CHANNELS)
        return 128 if parts * triton.cdiv(self.pixels, 128) >= ENOUGH_PROGRAMS else 64

    @property
    def blocks(self) -> int:
        return int(triton.cdiv(self.pixels, self.size))

    @property
    def width(self) -> int:
        return self.channels // self.groups

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.blocks, triton.cdiv(self.channels, CHANNELS), self.images

    def tile(self) -> dict[str, int]:
        warps = 8 if self.size > 64 else 4
        return {"PIXELS": self.size, "CHANNELS": CHANNELS, "num_warps": warps}

    def group_tile(self) -> dict[str, int]:
        return {"ROWS": 32, "WIDTH": triton.next_power_of_2(self.width), "num_warps": 4}

    def parts(self, x: Tensor, count: int) -> Tensor:
        """Room for per-channel sums of each tile."""
        return x.new_empty((count, self.images, self.blocks, self.channels), dtype=torch.float32)


def forward(
    x: Tensor,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalizes rows `[N, P, C]`; returns the result and `[N, groups]` mean and rstd, fp32."""
    images, pixels, channels = x.shape
    if small_group_norm.fits(pixels, channels, groups):
        return small_group_norm.forward(x, shift, weight, bias, groups, eps, silu)
    plan = _Plan(images, pixels, channels, groups)
    means, squares = plan.parts(x, 2)
    mean, rstd = x.new_empty((2, plan.images, groups), dtype=torch.float32)
    y = torch.empty_like(x)
    added = {"SHIFT": shift is not None}
    # A pointer has to be given; without a shift it isn't read.
    shift = x if shift is None else shift
    _partial_moments[plan.grid](
        x, shift, means, squares, pixels, channels, **added, **plan.tile()
    )  # fmt: skip
    _moments[(groups, plan.images)](
        means, squares, mean, rstd, pixels, channels, plan.width, plan.blocks, eps,
        PIXELS=plan.size, **plan.group_tile(),
    )  # fmt: skip
    _normalize[plan.grid](
        x, shift, y, weight, bias, mean, rstd, pixels, channels, plan.width, groups,
        SILU=silu, **added, **plan.tile(),
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
    """The gradients of rows `[N, P, C]`, weight, bias and shift."""
    images, pixels, channels = x.shape
    if small_group_norm.fits(pixels, channels, groups):
        return small_group_norm.backward(dy, x, shift, weight, bias, mean, rstd, groups, silu)
    plan = _Plan(images, pixels, channels, groups)
    shifts, scales = plan.parts(x, 2)
    first, second = x.new_empty((2, plan.images, groups), dtype=torch.float32)
    dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
    added = {"SHIFT": shift is not None}
    more = x if shift is None else shift
    _partial_gradients[plan.grid](
        x, more, dy, weight, bias, mean, rstd, shifts, scales, pixels, channels, plan.width,
        groups, SILU=silu, **added, **plan.tile(),
    )  # fmt: skip
    _gradients[(groups,)](
        shifts, scales, weight, dweight, dbias, first, second, plan.images, channels, plan.width,
        plan.blocks, **plan.group_tile(),
    )  # fmt: skip
    # The parts of the sums above have been read: their memory takes the next ones.
    _input_gradient[plan.grid](
        x, more, dy, dx, weight, bias, mean, rstd, first, second, shifts, pixels, channels,
        plan.width, groups, SILU=silu, **added, **plan.tile(),
    )  # fmt: skip
    dshift = None if shift is None else shifts.sum(dim=1).to(shift.dtype)
    return dx, dweight, dbias, dshift
