"""The training loop."""

import math
from pathlib import Path

import pytest
import torch

from dreambooth.models.conditioning import Conditioning
from dreambooth.models.stable_diffusion import StableDiffusion
from dreambooth.training.checkpoint import CheckpointStore
from dreambooth.training.eager import EagerEngine
from dreambooth.training.trainer import Trainer, TrainerSettings
from tests.unit.training.conftest import CPU, make_trainer, settings


@pytest.fixture(params=["epsilon", "velocity"])
def model_folder(
    request: pytest.FixtureRequest, tiny_model: Path, tiny_velocity_model: Path
) -> Path:
    """One that predicts noise, and one that predicts velocity."""
    return tiny_model if request.param == "epsilon" else tiny_velocity_model


class Bench:
    """Makes equal trainers."""

    def __init__(self, model: Path, photos: list[Path], class_images: list[Path]) -> None:
        self._given = (model, photos, class_images)

    def __call__(self, wanted: TrainerSettings, *, lora: bool = False) -> Trainer:
        folder, photos, class_images = self._given
        model = StableDiffusion.load(folder).to(CPU)
        if lora:
            model.add_lora(4, 4, text_encoder=wanted.text_encoder, seed=0)
        return make_trainer(model, photos, class_images, wanted)


@pytest.fixture
def bench(model_folder: Path, photos: list[Path], class_images: list[Path]) -> Bench:
    return Bench(model_folder, photos, class_images)


@pytest.fixture
def noise_bench(tiny_model: Path, photos: list[Path], class_images: list[Path]) -> Bench:
    return Bench(tiny_model, photos, class_images)


def test_what_is_learned_is_what_the_model_predicts(
    tiny_model: Path, tiny_velocity_model: Path
) -> None:
    latents, noise, times = (
        torch.randn(1, 4, 16, 16),
        torch.randn(1, 4, 16, 16),
        torch.tensor([300]),
    )
    of_noise = StableDiffusion.load(tiny_model)
    assert torch.equal(of_noise.target(latents, noise, times), noise)
    velocity = StableDiffusion.load(tiny_velocity_model).target(latents, noise, times)
    at_noise = of_noise.add_noise(torch.zeros_like(noise), torch.ones_like(noise), times)
    at_latents = of_noise.add_noise(torch.ones_like(noise), torch.zeros_like(noise), times)
    torch.testing.assert_close(velocity, at_latents * noise - at_noise * latents)


def optimizer_of(trainer: Trainer) -> torch.optim.Optimizer:
    assert isinstance(trainer.engine, EagerEngine)
    return trainer.engine.optimizer


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.parameters.items()}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("text_encoder", [False, True])
def test_a_resumed_training_equals_one_that_was_not_interrupted_bit_for_bit(
    bench: Bench, tmp_path: Path, text_encoder: bool, lora: bool
) -> None:
    wanted = settings(text_encoder=text_encoder)
    straight, first = bench(wanted, lora=lora), bench(wanted, lora=lora)
    for _ in range(6):
        straight.train_step()
    for _ in range(3):
        first.train_step()
    store = CheckpointStore(tmp_path / "checkpoints", "key")
    store.save(first.checkpoint({}))
    second = bench(wanted, lora=lora)
    latest = store.latest()
    assert latest is not None
    second.restore(latest)
    while second.step < 6:
        second.train_step()
    assert second.losses == straight.losses
    ours, theirs = second.checkpoint({}), straight.checkpoint({})
    assert ours.moments.keys() == theirs.moments.keys()
    assert len(ours.moments) == 3 * len(ours.weights)
    assert all(torch.equal(ours.weights[name], theirs.weights[name]) for name in theirs.weights)
    assert all(torch.equal(ours.moments[name], theirs.moments[name]) for name in theirs.moments)


def test_the_gradients_the_optimizer_sees_are_clipped(noise_bench: Bench) -> None:
    norms: dict[float, float] = {}
    for clip in (0.01, 1e9):
        trainer = noise_bench(settings(gradient_clip=clip))

        def note(*_: object, clip: float = clip, trainer: Trainer = trainer) -> None:
            squares = [p.grad.square().sum() for p in trainer.parameters.values()
                       if p.grad is not None]  # fmt: skip
            norms[clip] = math.sqrt(torch.stack(squares).sum().item())

        optimizer_of(trainer).register_step_pre_hook(note)
        trainer.train_step()
    assert norms[1e9] > 0.02
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3)


def test_without_a_prior_weight_class_pictures_change_nothing(
    tiny_model: Path, photos: list[Path], class_images: list[Path]
) -> None:
    results = []
    for pictures in (class_images, photos):
        trainer = Bench(tiny_model, photos, pictures)(settings(prior_weight=0.0))
        trainer.train_step()
        results.append(weights(trainer))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_with_a_prior_weight_class_pictures_matter(
    tiny_model: Path, photos: list[Path], class_images: list[Path]
) -> None:
    losses = [
        Bench(tiny_model, photos, pictures)(settings()).train_step()
        for pictures in (class_images, photos)
    ]
    assert losses[0] != losses[1]


def test_masters_are_float32_so_that_small_updates_are_not_lost(noise_bench: Bench) -> None:
    changed = {}
    for dtype in (torch.float32, torch.bfloat16):
        trainer = noise_bench(settings(learning_rate=1e-6, weights_dtype=dtype))
        before = weights(trainer)
        assert {p.dtype for p in before.values()} == {dtype}
        trainer.train_step()
        moved = [(before[name] != now).float().mean() for name, now in weights(trainer).items()
                 if before[name].abs().max() > 0]  # fmt: skip
        changed[dtype] = torch.stack(moved).mean().item()
    assert changed[torch.float32] > 0.8
    assert changed[torch.bfloat16] < 0.2


def test_a_frozen_text_encoder_is_left_alone_and_asked_once(
    noise_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    encode = StableDiffusion.encode_prompt

    def counting(self: StableDiffusion, ids: tuple[torch.Tensor, ...]) -> Conditioning:
        calls.append(len(ids[0]))
        return encode(self, ids)

    monkeypatch.setattr(StableDiffusion, "encode_prompt", counting)
    trainer = noise_bench(settings(text_encoder=False))
    before = {n: p.clone() for n, p in trainer.model.text_encoders[0].named_parameters()}
    for _ in range(3):
        trainer.train_step()
    assert len(calls) == 1
    assert all(name.startswith("denoiser.") for name in trainer.parameters)
    after = dict(trainer.model.text_encoders[0].named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_trained_text_encoder_learns(noise_bench: Bench) -> None:
    trainer = noise_bench(settings(text_encoder=True))
    before = weights(trainer)
    trainer.train_step()
    moved = [n for n, now in weights(trainer).items() if not torch.equal(before[n], now)]
    assert any(name.startswith("text_encoder.") for name in moved)
    assert any(name.startswith("denoiser.") for name in moved)


def test_lora_trains_adapters_and_nothing_else(noise_bench: Bench) -> None:
    trainer = noise_bench(settings(), lora=True)
    model = trainer.model.denoiser
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):
        trainer.train_step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(before[n], p)}
    assert moved
    assert all("lora" in name for name in moved)
    assert all("lora" in name for name in trainer.parameters)


def test_the_loss_falls(noise_bench: Bench) -> None:
    trainer = noise_bench(settings(learning_rate=1e-2))
    losses = [trainer.train_step() for _ in range(60)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
