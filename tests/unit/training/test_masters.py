"""The engine of GPUs, run without graphs on a CPU."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dreambooth.errors import UserError
from dreambooth.models.conditioning import Conditioning
from dreambooth.models.load import load_model
from dreambooth.models.stable_diffusion import StableDiffusion
from dreambooth.training import capture, launching, masters
from dreambooth.training.capture import Launch
from dreambooth.training.checkpoint import CheckpointStore
from dreambooth.training.distributed import Alone
from dreambooth.training.eager import EagerEngine
from dreambooth.training.engine import EngineFactory, EngineParts
from dreambooth.training.inputs import LossStream
from dreambooth.training.latents import encode_pictures
from dreambooth.training.masters import MasterEngine
from dreambooth.training.memory import Activations, Place
from dreambooth.training.schedule import PairSchedule
from dreambooth.training.trainer import Trainer, TrainerSettings, TrainingData
from tests.tiny_families import make_tiny_sd3, make_tiny_xl
from tests.unit.training.conftest import CPU, settings

PAIRS = 4


def in_float32(parts: EngineParts) -> MasterEngine:
    return MasterEngine(parts, working_dtype=torch.float32)


def in_bfloat16(parts: EngineParts) -> MasterEngine:
    return MasterEngine(parts, working_dtype=torch.bfloat16)


class Bench:
    """Makes equal trainers."""

    def __init__(self, model: Path, photos: list[Path], class_images: list[Path]) -> None:
        self._given = (model, photos, class_images)

    def __call__(
        self, engine: EngineFactory, wanted: TrainerSettings, *, lora: bool = False
    ) -> Trainer:
        folder, photos, class_images = self._given
        model = load_model(folder).to(CPU)
        data = TrainingData(
            photos=encode_pictures(model, photos, 0, CPU),
            class_images=encode_pictures(model, class_images, 0, CPU),
            photo_ids=model.tokenize(["photo of a sks dog"]),
            class_ids=model.tokenize(["photo of a dog"]),
        )
        if lora:
            model.add_lora(4, 4, text_encoder=wanted.text_encoder, seed=0)
        schedule = PairSchedule(0, len(photos), len(class_images), PAIRS)
        return Trainer(model, data, schedule, wanted, Alone(), CPU, engine)


@pytest.fixture
def bench(tiny_model: Path, photos: list[Path], class_images: list[Path]) -> Bench:
    return Bench(tiny_model, photos, class_images)


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def master_engine(trainer: Trainer) -> MasterEngine:
    assert isinstance(trainer.engine, MasterEngine)
    return trainer.engine


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("text_encoder", [False, True])
def test_with_float32_weights_it_does_what_the_reference_does(
    bench: Bench, text_encoder: bool, lora: bool
) -> None:
    wanted = settings(text_encoder=text_encoder, learning_rate=1e-3)
    reference, ours = (bench(engine, wanted, lora=lora) for engine in (EagerEngine, in_float32))
    theirs = [reference.train_step() for _ in range(6)]
    assert [ours.train_step() for _ in range(6)] == pytest.approx(theirs, rel=1e-4)
    expected = reference.engine.weights()
    for name, weight in ours.engine.weights().items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("make", [make_tiny_xl, make_tiny_sd3])
def test_it_trains_every_family_as_the_reference_does(
    make: Callable[[Path], Path],
    lora: bool,
    tmp_path: Path,
    photos: list[Path],
    class_images: list[Path],
) -> None:
    bench = Bench(make(tmp_path / "model"), photos, class_images)
    wanted = settings(learning_rate=1e-3)
    reference = bench(EagerEngine, wanted, lora=lora)
    theirs = [reference.train_step() for _ in range(3)]
    for engine, tolerance in ((in_float32, 1e-4), (in_bfloat16, 0.03)):
        trainer = bench(engine, wanted, lora=lora)
        assert [trainer.train_step() for _ in range(3)] == pytest.approx(theirs, rel=tolerance)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("text_encoder", [False, True])
def test_resumed_it_ends_with_the_same_bits(
    bench: Bench, tmp_path: Path, text_encoder: bool, lora: bool
) -> None:
    wanted = settings(text_encoder=text_encoder)
    straight, first = (bench(in_bfloat16, wanted, lora=lora) for _ in range(2))
    for _ in range(6):
        straight.train_step()
    for _ in range(3):
        first.train_step()
    store = CheckpointStore(tmp_path / "checkpoints", "key")
    store.save(first.checkpoint({}))
    latest = store.latest()
    assert latest is not None
    second = bench(in_bfloat16, wanted, lora=lora)
    second.restore(latest)
    while second.step < 6:
        second.train_step()
    assert second.losses == straight.losses
    ours, theirs = second.checkpoint({}), straight.checkpoint({})
    assert all(torch.equal(ours.weights[name], theirs.weights[name]) for name in theirs.weights)
    assert all(torch.equal(ours.moments[name], theirs.moments[name]) for name in theirs.moments)


@pytest.mark.parametrize(
    ("first", "second"), [(EagerEngine, in_float32), (in_float32, EagerEngine)]
)
def test_a_training_goes_on_with_the_other_engine(
    bench: Bench, tmp_path: Path, first: EngineFactory, second: EngineFactory
) -> None:
    wanted = settings(learning_rate=1e-3)
    straight, begun, gone_on = (bench(e, wanted) for e in (EagerEngine, first, second))
    losses = [straight.train_step() for _ in range(6)]
    for _ in range(3):
        begun.train_step()
    store = CheckpointStore(tmp_path / "checkpoints", "key")
    store.save(begun.checkpoint({}))
    gone_on.restore(store.load(3))
    while gone_on.step < 6:
        gone_on.train_step()
    assert gone_on.losses == pytest.approx(losses, rel=1e-4)
    assert gone_on.checkpoint({}).moments.keys() == straight.checkpoint({}).moments.keys()


def test_working_weights_are_bfloat16_and_masters_float32_rounds_to_them(bench: Bench) -> None:
    trainer = bench(in_bfloat16, settings())
    trainer.train_step()
    for name, master in trainer.engine.weights().items():
        working = trainer.parameters[name]
        assert (master.dtype, working.dtype) == (torch.float32, torch.bfloat16)
        assert torch.equal(master.to(torch.bfloat16), working)


def test_getting_ready_leaves_weights_and_moments_as_they_were(
    bench: Bench, tiny_model: Path
) -> None:
    trainer = bench(in_bfloat16, settings(learning_rate=1.0))
    original = dict(StableDiffusion.load(tiny_model).denoiser.named_parameters())
    for name, weight in trainer.engine.weights().items():
        part, _, rest = name.partition(".")
        if part == "denoiser":
            assert torch.equal(weight, original[rest])
    assert all(not moment.any() for moment in trainer.engine.moments().values())


def test_lora_has_masters_for_adapters_alone_and_frozen_weights_in_bfloat16(bench: Bench) -> None:
    trainer = bench(in_bfloat16, settings(), lora=True)
    before = {n: p.detach().clone() for n, p in trainer.model.denoiser.named_parameters()}
    trainer.train_step()
    trainer.train_step()
    now = dict(trainer.model.denoiser.named_parameters())
    assert {p.dtype for p in now.values()} == {torch.bfloat16}
    assert all("lora" in name for name in trainer.engine.weights())
    moved = {name for name in now if not torch.equal(before[name], now[name])}
    assert moved
    assert all("lora" in name for name in moved)
    assert all(p.grad is None for name, p in now.items() if "lora" not in name)


def test_a_frozen_text_encoder_keeps_its_float32_weights(bench: Bench) -> None:
    trainer = bench(in_bfloat16, settings(text_encoder=False))
    trainer.train_step()
    assert {p.dtype for p in trainer.model.text_encoders[0].parameters()} == {torch.float32}
    assert all(name.startswith("denoiser.") for name in trainer.parameters)


def test_finished_it_leaves_the_float32_masters_in_the_model(bench: Bench) -> None:
    trainer = bench(in_bfloat16, settings())
    trainer.train_step()
    expected = copied(trainer.engine.weights())
    trainer.finish()
    trainer.finish()
    for name, parameter in trainer.parameters.items():
        assert torch.equal(parameter.data, expected[name])
        assert parameter.grad is None


@pytest.mark.parametrize("lora", [False, True])
def test_the_saved_model_is_that_of_the_reference(bench: Bench, tmp_path: Path, lora: bool) -> None:
    saved = {}
    for name, engine in (("reference", EagerEngine), ("ours", in_float32)):
        trainer = bench(engine, settings(learning_rate=1e-3), lora=lora)
        for _ in range(3):
            trainer.train_step()
        trainer.finish()
        trainer.model.save(tmp_path / name, lora=lora)
        saved[name] = {
            file.relative_to(tmp_path / name): load_file(file)
            for file in (tmp_path / name).rglob("*.safetensors")
        }
    assert saved["ours"].keys() == saved["reference"].keys()
    for file, expected in saved["reference"].items():
        assert saved["ours"][file].keys() == expected.keys()
        for name, weight in saved["ours"][file].items():
            assert weight.dtype == expected[name].dtype == torch.float32
            torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)


def test_memory_that_is_short_only_when_all_runs_leads_to_a_smaller_plan(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = launching.launch_step
    tried: list[int] = []

    def short_at_first(*given: Any) -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("no room")
        return launch(*given)

    monkeypatch.setattr(masters, "launch_step", short_at_first)
    trainer = bench(in_float32, settings())
    assert trainer.engine.describe()["microBatches"] == 2


def test_the_learning_rate_of_each_step_reaches_the_optimizer(bench: Bench) -> None:
    wanted = replace(settings(learning_rate=1e-3), decay_steps=4)
    reference, ours = bench(EagerEngine, wanted), bench(in_float32, wanted)
    for _ in range(4):
        reference.train_step()
        ours.train_step()
    before = copied(ours.engine.weights())
    assert ours.losses == pytest.approx(reference.losses, rel=1e-4)
    # After the last step of the decay the rate is zero.
    ours.train_step()
    assert all(torch.equal(before[n], now) for n, now in ours.engine.weights().items())


def test_losses_may_be_read_some_steps_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, later = bench(in_float32, settings()), bench(in_float32, settings())
    expected = [at_once.train_step() for _ in range(8)]
    engine = master_engine(later)
    engine.lag = 3
    monkeypatch.setattr(engine, "_losses", LossStream(CPU, 3))
    for step in range(1, 9):
        later.advance()
        assert later.losses == expected[: max(0, step - 3)]
    later.settle()
    assert later.losses == expected


# Memory.


def out_of_memory_beyond(samples: int) -> Callable[..., Tensor]:
    """The denoiser on a device with room for so many samples; half more if recomputed."""
    predict = StableDiffusion.predict

    def limited(
        self: StableDiffusion, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        room = samples * (2 if self.denoiser.is_gradient_checkpointing else 1)
        if torch.is_grad_enabled() and len(noisy) > room:
            raise torch.OutOfMemoryError("no room")
        return predict(self, noisy, timesteps, conditioning)

    return limited


@pytest.mark.parametrize(
    ("room", "batches", "activations"),
    [
        (8, 1, Activations.KEPT),
        (7, 2, Activations.KEPT),
        (3, 4, Activations.KEPT),
        (1, 4, Activations.RECOMPUTED),
    ],
)
def test_a_small_device_takes_the_same_steps_in_smaller_parts(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    room: int,
    batches: int,
    activations: Activations,
) -> None:
    wanted = settings(learning_rate=1e-3)
    whole = bench(in_float32, wanted)
    monkeypatch.setattr(StableDiffusion, "predict", out_of_memory_beyond(room))
    parted = bench(in_float32, wanted)
    plan = master_engine(parted).plan
    assert (plan.batches, plan.activations) == (batches, activations)
    assert plan.batches * plan.pairs == PAIRS
    told = parted.engine.describe()
    assert told["microBatches"] == batches
    assert told["activations"] == activations.value
    monkeypatch.undo()
    losses = [whole.train_step() for _ in range(4)]
    assert [parted.train_step() for _ in range(4)] == pytest.approx(losses, rel=1e-4)


def test_no_room_at_all_is_the_users_to_mend(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StableDiffusion, "predict", out_of_memory_beyond(0))
    with pytest.raises(UserError, match="does not fit") as caught:
        bench(in_float32, settings())
    assert caught.value.field == "spec.training.method"


def test_memory_that_runs_out_on_the_way_costs_no_step(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, trainer = bench(in_float32, settings()), bench(in_float32, settings())
    losses = [straight.train_step() for _ in range(6)]
    for _ in range(3):
        trainer.train_step()
    monkeypatch.setattr(StableDiffusion, "predict", out_of_memory_beyond(4))
    for _ in range(3):
        trainer.train_step()
    assert trainer.losses == pytest.approx(losses, rel=1e-4)
    assert trainer.engine.describe()["microBatches"] == 2


def test_latents_that_stay_with_the_host_give_the_same_steps(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_device = bench(in_float32, settings())
    monkeypatch.setattr(masters, "latents_place", lambda *_: Place.HOST)
    on_host = bench(in_float32, settings())
    assert on_host.engine.describe()["latents"] == "host"
    losses = [on_device.train_step() for _ in range(4)]
    assert [on_host.train_step() for _ in range(4)] == pytest.approx(losses, rel=1e-6)


# Launching. A graph here is the work itself, replayed by doing it again.


class Replayed:
    """Stands for a CUDA graph of `work`."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.replay = work


def launched_as(*launches: Launch) -> EngineFactory:
    return lambda parts: MasterEngine(parts, working_dtype=torch.float32, launches=launches)


def test_a_captured_step_is_taken_when_it_works(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "capture", Replayed)
    trainer = bench(launched_as(Launch.GRAPH, Launch.EAGER), settings())
    assert trainer.engine.describe()["launch"] == "one CUDA graph"
    assert "refused" not in trainer.engine.describe()
    expected = [bench(in_float32, settings()).train_step()]
    assert [trainer.train_step()] == expected


def test_a_capture_that_fails_is_told_and_training_goes_on_without(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(work: Callable[[], None]) -> Any:
        work()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(launching, "capture", fail)
    trainer = bench(launched_as(Launch.GRAPH, Launch.EAGER), settings())
    told = trainer.engine.describe()
    assert told["launch"] == "eager"
    assert told["refused"] == {
        "one CUDA graph": "RuntimeError: operation not permitted when stream is capturing"
    }
    expected = [bench(in_float32, settings()).train_step()]
    assert [trainer.train_step()] == expected


def test_a_capture_that_runs_out_of_memory_leads_to_a_smaller_plan(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def short_at_first(work: Callable[[], None]) -> Any:
        tried.append(1)
        if len(tried) == 1:
            try:
                raise torch.OutOfMemoryError("no room")
            finally:
                # Ending a broken capture fails, too, and that is what is seen.
                raise RuntimeError("capture was invalidated")
        return Replayed(work)

    monkeypatch.setattr(launching, "capture", short_at_first)
    trainer = bench(launched_as(Launch.GRAPH, Launch.EAGER), settings())
    told = trainer.engine.describe()
    assert (told["launch"], told["microBatches"]) == ("one CUDA graph", 2)


def test_want_of_memory_is_recognised_behind_other_errors() -> None:
    def chain(errors: Sequence[Exception]) -> Exception:
        for error, before in zip(errors[1:], errors, strict=False):
            error.__context__ = before
        return errors[-1]

    assert capture.is_out_of_memory(torch.OutOfMemoryError("x"))
    assert capture.is_out_of_memory(chain([torch.OutOfMemoryError("x"), RuntimeError("y")]))
    assert not capture.is_out_of_memory(chain([ValueError("x"), RuntimeError("y")]))
    assert not capture.is_out_of_memory(None)


# Numerics.


def loss_curve(trainer: Trainer, steps: int) -> list[float]:
    return [trainer.train_step() for _ in range(steps)]


def test_fifty_steps_in_bfloat16_with_masters_stay_within_the_noise_of_float32(
    bench: Bench,
) -> None:
    wanted = settings(learning_rate=1e-3)
    reference = loss_curve(bench(EagerEngine, wanted), 50)
    ours = loss_curve(bench(in_bfloat16, wanted), 50)
    differences = [a - b for a, b in zip(ours, reference, strict=True)]
    # Losses of neighbouring steps differ by their samples: that is the noise.
    noise = [b - a for a, b in itertools.pairwise(reference)]
    spread = math.sqrt(sum(x * x for x in noise) / len(noise))
    assert max(map(abs, differences)) < 0.25 * spread
    assert abs(sum(differences) / 50) < 0.05 * spread
