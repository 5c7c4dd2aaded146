"""The kernels of `dreambooth.kernels.upsampling`."""

import triton
import triton.language as tl
from torch import Tensor

from dreambooth.kernels.device.launching import Kernel

PIXELS, CHANNELS = 32, 64


@triton.jit
def _place(P, W, C, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Offsets in the small image, of the first of four pixels in the large one, and the mask."""
    pixels = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    mask = (pixels < P)[:, None] & (channels < C)[None, :]
    # Rows of all images follow each other: row r of the small ones is 2r and 2r + 1 of the large.
    first = (pixels // W).to(tl.int64) * (4 * W) + (pixels % W) * 2
    small = pixels.to(tl.int64)[:, None] * C + channels[None, :]
    large = first[:, None] * C + channels[None, :]
    return small, large, mask


@Kernel
def _double(x, y, P, W, C, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    small, large, mask = _place(P, W, C, PIXELS, CHANNELS)
    values = tl.load(x + small, mask=mask)
    tl.store(y + large, values, mask=mask)
    tl.store(y + (large + C), values, mask=mask)
    tl.store(y + (large + 2 * W * C), values, mask=mask)
    tl.store(y + (large + 2 * W * C + C), values, mask=mask)


@Kernel
def _halve(dy, dx, P, W, C, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    small, large, mask = _place(P, W, C, PIXELS, CHANNELS)
    total = tl.load(dy + large, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(dy + (large + C), mask=mask, other=0.0).to(tl.float32)
    total += tl.load(dy + (large + 2 * W * C), mask=mask, other=0.0).to(tl.float32)
    total += tl.load(dy + (large + 2 * W * C + C), mask=mask, other=0.0).to(tl.float32)
    tl.store(dx + small, total.to(dx.dtype.element_ty), mask=mask)


def double(x: Tensor) -> Tensor:
    """`[N, H, W, C]` to `[N, 2H, 2W, C]`."""
    images, height, width, channels = x.shape
    y = x.new_empty((images, 2 * height, 2 * width, channels))
    pixels = images * height * width
    grid = (triton.cdiv(pixels, PIXELS), triton.cdiv(channels, CHANNELS))
    _double[grid](x, y, pixels, width, channels, PIXELS=PIXELS, CHANNELS=CHANNELS, num_warps=4)
    return y


def halve(dy: Tensor) -> Tensor:
    """The sums of four pixels: `[N, 2H, 2W, C]` to `[N, H, W, C]`."""
    images, height, width, channels = dy.shape[0], dy.shape[1] // 2, dy.shape[2] // 2, dy.shape[3]
    dx = dy.new_empty((images, height, width, channels))
    pixels = images * height * width
    grid = (triton.cdiv(pixels, PIXELS), triton.cdiv(channels, CHANNELS))
    _halve[grid](dy, dx, pixels, width, channels, PIXELS=PIXELS, CHANNELS=CHANNELS, num_warps=4)
    return dx
