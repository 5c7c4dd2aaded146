"""Pictures encoded once."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from dreambooth.models.stable_diffusion import StableDiffusion
from dreambooth.training.latents import CROPS, encode_pictures, to_pixels
from tests.unit.training.conftest import CPU, pictures


@pytest.fixture
def model(tiny_model: Path) -> StableDiffusion:
    return StableDiffusion.load(tiny_model)


def test_a_cached_latent_is_what_the_vae_says_now(model: StableDiffusion, tmp_path: Path) -> None:
    files = pictures(tmp_path, 10)
    cache = encode_pictures(model, files, 0, CPU)
    assert cache.mean.shape == (10, 1, *model.latent_shape)
    for number, file in enumerate(files):
        with Image.open(file) as image, torch.no_grad():
            fresh = model.encode_image(to_pixels(image)[None])
        torch.testing.assert_close(cache.mean[number, 0], fresh.mean[0])
        torch.testing.assert_close(cache.std[number, 0], fresh.std[0])


def test_a_sample_is_the_mean_plus_noise_times_the_deviation(
    model: StableDiffusion, tmp_path: Path
) -> None:
    cache = encode_pictures(model, pictures(tmp_path, 2), 0, CPU)
    noise = torch.randn(model.latent_shape)
    sample = cache.sample(1, noise, seed=5)
    assert torch.equal(sample, cache.mean[1, 0] + cache.std[1, 0] * noise)


def test_a_photo_that_is_not_square_has_several_cuts_chosen_by_the_seed(
    model: StableDiffusion, tmp_path: Path
) -> None:
    files = [*pictures(tmp_path / "wide", 1, (96, 32)), *pictures(tmp_path / "square", 1)]
    cache, again, other = (encode_pictures(model, files, seed, CPU) for seed in (0, 0, 1))
    assert cache.mean.shape[:2] == (2, CROPS)
    assert torch.equal(cache.mean, again.mean)
    assert not torch.equal(cache.mean[0], other.mean[0])
    assert torch.equal(cache.mean[1], other.mean[1])
    seen = {cache.sample(0, torch.zeros(model.latent_shape), s).sum().item() for s in range(CROPS)}
    assert len(seen) > 1


def test_pixels_reach_from_minus_one_to_one() -> None:
    image = Image.new("RGB", (2, 1))
    image.putpixel((1, 0), (255, 255, 255))
    assert to_pixels(image).tolist() == [[[-1.0, 1.0]]] * 3
