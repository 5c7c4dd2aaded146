"""Pictures as the trainer sees them: encoded once, sampled at every step.

The notebook runs the VAE in every step; the posterior does not change, so its mean and deviation
are computed once and only the sampling stays in the loop.
"""

from collections.abc import Sequence
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


@torch.no_grad()
def encode_pictures(
    model: ModelFamily, files: Sequence[Path], seed: int, device: torch.device
) -> LatentCache:
    """Encodes pictures at the model's resolution.

    Args:
        model: Its VAE is used as it is.
        files: Picture files; RGB.
        seed: Decides the random cuts.
        device: Where the VAE is and the cache will be.
    """
    pictures = [_crops(file, model.resolution, derive_seed(seed, "crop", i))
                for i, file in enumerate(files)]  # fmt: skip
    crops = max(len(cuts) for cuts in pictures)
    flat = [cuts[k % len(cuts)] for cuts in pictures for k in range(crops)]
    encoded: dict[int, LatentDistribution] = {}
    unique = {id(pixels): pixels for pixels in flat}
    keys = list(unique)
    for start in range(0, len(keys), ENCODE_BATCH):
        part = keys[start : start + ENCODE_BATCH]
        latents = model.encode_image(torch.stack([unique[key] for key in part]).to(device))
        for place, key in enumerate(part):
            encoded[key] = LatentDistribution(latents.mean[place], latents.std[place])
    shape = (len(files), crops, *model.latent_shape)
    return LatentCache(
        torch.stack([encoded[id(pixels)].mean for pixels in flat]).view(shape),
        torch.stack([encoded[id(pixels)].std for pixels in flat]).view(shape),
    )


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
