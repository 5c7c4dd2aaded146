"""Pictures as the trainer sees them: encoded once, sampled at every step.

The notebook runs the VAE in every step; the posterior does not change, so its mean and deviation
are computed once and only the sampling stays in the loop.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dreambooth.models.family import LatentDistribution, ModelFamily
from dreambooth.training.schedule import derive_seed

# A photo that is not square is cut to one; this many random cuts of each stand in for the fresh
# cut at every step of the notebook.
CROPS = 4
ENCODE_BATCH = 8
# On GPUs the VAE computes as the notebook's does; its float32 takes several times as long.
GPU_ENCODE_DTYPE = torch.bfloat16
# Pictures that are read ahead of the VAE, in batches.
READ_AHEAD = 4
MAX_READERS = 16


@dataclass(frozen=True)
class LatentCache:
    """Posterior means and deviations, `[N, K, C, h, w]` each: N pictures, K crops of each."""

    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def sample(self, index: int, posterior_noise: Tensor, seed: int) -> Tensor:
        """A latent `[C, h, w]` of picture `index`; the seed picks the crop."""
        crop = seed % self.mean.shape[1]
        return self.mean[index, crop] + self.std[index, crop] * posterior_noise

    def to(self, device: torch.device) -> "LatentCache":
        """In that device's memory."""
        return LatentCache(self.mean.to(device), self.std.to(device))


@torch.no_grad()
def encode_pictures(
    model: ModelFamily, files: Sequence[Path], seed: int, device: torch.device
) -> LatentCache:
    """Encodes pictures at the model's resolution; the cache is in the host's memory.

    Files are read and cut by threads while the VAE works.

    Args:
        model: Its VAE is used as it is, on GPUs under autocast.
        files: Picture files; RGB.
        seed: Decides the random cuts.
        device: Where the VAE is.
    """
    cuts_of: list[int] = []
    means: list[Tensor] = []
    stds: list[Tensor] = []
    batch: list[Tensor] = []

    def encode() -> None:
        if not batch:
            return
        latents = _encode(model, torch.stack(batch), device)
        means.extend(latents.mean.cpu())
        stds.extend(latents.std.cpu())
        batch.clear()

    for cuts in _read(files, model.resolution, seed):
        cuts_of.append(len(cuts))
        for pixels in cuts:
            batch.append(pixels)
            if len(batch) == ENCODE_BATCH:
                encode()
    encode()
    # Square pictures have one cut, repeated where others have more.
    crops = max(cuts_of)
    starts = np.cumsum([0, *cuts_of[:-1]])
    rows = [
        int(start) + k % count
        for start, count in zip(starts, cuts_of, strict=True)
        for k in range(crops)
    ]
    shape = (len(files), crops, *model.latent_shape)
    return LatentCache(
        torch.stack([means[row] for row in rows]).view(shape),
        torch.stack([stds[row] for row in rows]).view(shape),
    )


def _encode(model: ModelFamily, pixels: Tensor, device: torch.device) -> LatentDistribution:
    """Encodes `pixels` together, or in halves where there is no room for all."""
    on_gpu = device.type == "cuda"
    try:
        with torch.autocast(device.type, GPU_ENCODE_DTYPE, enabled=on_gpu):
            return model.encode_image(pixels.to(device))
    except torch.OutOfMemoryError:
        if len(pixels) == 1:
            raise
    parts = [_encode(model, half, device) for half in pixels.chunk(2)]
    return LatentDistribution(*(torch.cat(both) for both in zip(*parts, strict=True)))


def _read(files: Sequence[Path], side: int, seed: int) -> Iterator[list[Tensor]]:
    """Each file's cuts, in order; a bounded number of files is in memory."""

    def reading(number: int) -> Callable[[], list[Tensor]]:
        return lambda: _crops(files[number], side, derive_seed(seed, "crop", number))

    readers = min(MAX_READERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(readers, thread_name_prefix="read-pictures") as pool:
        waiting: deque[Future[list[Tensor]]] = deque()
        for number in range(len(files)):
            waiting.append(pool.submit(reading(number)))
            if len(waiting) > READ_AHEAD * ENCODE_BATCH:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _crops(file: Path, side: int, seed: int) -> list[Tensor]:
    """The picture's square cuts as `[3, side, side]` in [-1, 1]; one if it is square."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    scale = side / min(image.size)
    width, height = (max(side, round(edge * scale)) for edge in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if width == height:
        return [to_pixels(image)]
    generator = np.random.default_rng(seed)
    cuts = []
    for _ in range(CROPS):
        left = int(generator.integers(width - side + 1))
        top = int(generator.integers(height - side + 1))
        cuts.append(to_pixels(image.crop((left, top, left + side, top + side))))
    return cuts


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB picture as `[3, H, W]` float32 in [-1, 1]."""
    array = np.asarray(image, dtype=np.float32)
    return torch.from_numpy(array / 127.5 - 1.0).permute(2, 0, 1).contiguous()
