"""Training on a GPU with networks of Stable Diffusion's size and random weights.

Prints times and memory; of these only the caps are asserted. It also runs where pytest isn't
installed: `PYTHONPATH=runtime:. python tests/gpu/test_training.py [WORD]` runs the tests with WORD
in their names, each in a process of its own.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import CLIPTokenizer

import dreambooth.models
from bench.gpu.architecture import SD14, TEXT_LENGTH
from dreambooth.errors import UserError
from dreambooth.models.family import ModelFamily
from dreambooth.models.load import load_model
from dreambooth.models.stable_diffusion import StableDiffusion
from dreambooth.training import masters
from dreambooth.training.capture import Launch
from dreambooth.training.checkpoint import Checkpoint, CheckpointStore
from dreambooth.training.distributed import current_world
from dreambooth.training.engine import EngineFactory
from dreambooth.training.group import Preview
from dreambooth.training.latents import LatentCache, _encode
from dreambooth.training.masters import MasterEngine
from dreambooth.training.memory import Activations, MemoryPlan, Place
from dreambooth.training.rehearsal import rehearse_training
from dreambooth.training.schedule import PairSchedule
from dreambooth.training.settings import TrainerSettings, TrainingData
from dreambooth.training.trainer import Trainer, choose_engine
from dreambooth.training.writer import BackgroundWriter
from tests.gpu.compiled import compiled

GPU = torch.device("cuda")
BUILTIN = Path(dreambooth.models.__file__).parent / "builtin" / "emoji"
TOKENIZER = BUILTIN / "tokenizer"
NOISE = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
FULL = TrainerSettings(learning_rate=5e-6, prior_weight=1.0, gradient_clip=1.0, text_encoder=True)
PAIRS = 2
GIGABYTE = 10**9
FUSED_ATTENTION = (
    torch.backends.cuda.enable_cudnn_sdp,
    torch.backends.cuda.enable_flash_sdp,
    torch.backends.cuda.enable_mem_efficient_sdp,
)


def model() -> StableDiffusion:
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    tokenizer.model_max_length = TEXT_LENGTH
    with torch.device(GPU):
        parts = SD14.unet(), SD14.vae(), SD14.text_encoder()
    return StableDiffusion(*parts, tokenizer, NOISE).to(GPU)


def pictures(of: ModelFamily) -> TrainingData:
    generator = torch.Generator().manual_seed(0)

    def cache(count: int) -> LatentCache:
        shape = (count, 1, *of.latent_shape)
        mean = torch.randn(shape, generator=generator)
        return LatentCache(mean, 0.1 * torch.rand(shape, generator=generator))

    ids = of.tokenize(["photo of a sks dog"]), of.tokenize(["photo of a dog"])
    return TrainingData(cache(5), cache(40), *ids)


def trainer(
    engine: EngineFactory = choose_engine,
    settings: TrainerSettings = FULL,
    *,
    pairs: int = PAIRS,
    rank: int | None = None,
) -> Trainer:
    """Of all weights, or with a `rank` of adapters."""
    trained = model()
    data = pictures(trained)
    if rank is not None:
        trained.add_lora(rank, float(rank), text_encoder=settings.text_encoder, seed=0)
    trained.autoencoder.to("cpu")
    began = time.perf_counter()
    schedule = PairSchedule(0, len(data.photos), len(data.class_images), pairs)
    made = Trainer(trained, data, schedule, settings, current_world(), GPU, engine)
    torch.cuda.synchronize()
    print(f"    ready in {time.perf_counter() - began:.1f} s: {made.engine.describe()}", flush=True)
    return made


def launched(*launches: Launch) -> EngineFactory:
    return lambda parts: MasterEngine(parts, launches=launches)


def milliseconds(of: Trainer, steps: int = 20) -> float:
    of.train_step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        of.advance()
    of.settle()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps * 1e3


def close(a: list[float], b: list[float], tolerance: float) -> None:
    worst = max(abs(x - y) / y for x, y in zip(a, b, strict=True))
    print(f"    losses differ by {worst:.2e} at most", flush=True)
    assert worst < tolerance, (a, b)


@contextmanager
def capped(gigabytes: float) -> Iterator[None]:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(gigabytes * GIGABYTE / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def held(state: Checkpoint) -> Checkpoint:
    def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}

    meta = {**state.meta, "losses": list(state.meta["losses"])}
    return replace(state, weights=copied(state.weights), moments=copied(state.moments), meta=meta)


def test_operation_by_operation_the_engine_steps() -> None:
    eager = trainer(launched(Launch.EAGER))
    losses = [eager.train_step() for _ in range(5)]
    assert all(0.5 < loss < 5 for loss in losses), losses
    print(f"    {milliseconds(eager):.1f} ms a step", flush=True)


def test_a_captured_step_is_the_eager_one() -> None:
    eager = trainer(launched(Launch.EAGER))
    expected = [eager.train_step() for _ in range(8)]
    weights = held(eager.checkpoint({})).weights
    eager.finish()
    captured = trainer()
    assert captured.engine.describe()["launch"] == "one CUDA graph", captured.engine.describe()
    close([captured.train_step() for _ in range(8)], expected, 5e-3)
    apart = [float((w - weights[n]).abs().max()) for n, w in captured.engine.weights().items()]
    print(f"    weights differ by {max(apart):.2e} at most, 8 steps of 5e-6", flush=True)
    assert max(apart) < 8e-5
    print(f"    {milliseconds(captured):.1f} ms a step of {PAIRS} + {PAIRS} images", flush=True)


def test_a_rehearsal_leaves_nothing_to_compile() -> None:
    for rank in (None, 4):
        with tempfile.TemporaryDirectory() as cache:
            os.environ["TRITON_CACHE_DIR"] = cache
            rehearse_training(Preview(str(BUILTIN), True, rank, PAIRS))
            rehearsed = compiled(cache)
            trained = load_model(BUILTIN).to(GPU)
            data = pictures(trained)
            if rank is not None:
                trained.add_lora(rank, float(rank), text_encoder=True, seed=0)
            schedule = PairSchedule(0, len(data.photos), len(data.class_images), PAIRS)
            Trainer(trained, data, schedule, FULL, current_world(), GPU).train_step()
            print(f"    {len(rehearsed)} kernels are compiled ahead", flush=True)
            assert rehearsed and compiled(cache) == rehearsed, compiled(cache) - rehearsed


def test_larger_batches_take_less_time_an_image() -> None:
    for pairs in (2, 4, 8, 16):
        one = trainer(pairs=pairs)
        spent = milliseconds(one)
        assert one.engine.describe()["microBatches"] == 1
        print(f"    {pairs} pairs: {spent:.1f} ms, {2e3 * pairs / spent:.1f} images/s", flush=True)
        one.finish()
        del one


def test_lora_steps_are_captured() -> None:
    eager = trainer(launched(Launch.EAGER), rank=4)
    expected = [eager.train_step() for _ in range(8)]
    eager.finish()
    adapters = trainer(rank=4)
    assert adapters.engine.describe()["launch"] == "one CUDA graph", adapters.engine.describe()
    close([adapters.train_step() for _ in range(8)], expected, 5e-3)
    print(f"    LoRA: {milliseconds(adapters):.1f} ms a step", flush=True)


def test_a_training_that_goes_on_ends_with_the_same_bits() -> None:
    for exactly in (False, True):
        torch.use_deterministic_algorithms(exactly, warn_only=True)
        # Fused attention adds up in any order, cuDNN's whatever is asked for.
        for enable in FUSED_ATTENTION:
            enable(not exactly)
        straight = trainer()
        for _ in range(2):
            straight.train_step()
        state = held(straight.checkpoint({}))
        for _ in range(4):
            straight.train_step()
        losses, weights = list(straight.losses), held(straight.checkpoint({})).weights
        print(f"    {milliseconds(straight):.1f} ms a step", flush=True)
        straight.finish()
        again = trainer()
        again.restore(state)
        for _ in range(4):
            again.train_step()
        same = all(torch.equal(w, weights[n]) for n, w in again.engine.weights().items())
        name = "deterministic algorithms" if exactly else "the fastest algorithms"
        print(f"    with {name}: same losses {again.losses == losses}, same bits {same}")
        close(again.losses, losses, 5e-3)
        if exactly:
            assert same
        again.finish()
        del straight, again, state, weights
    torch.use_deterministic_algorithms(False)


def test_every_memory_plan_can_be_captured() -> None:
    expected: list[float] = []
    for plan in (
        MemoryPlan(1, 2, Activations.KEPT, Place.DEVICE),
        MemoryPlan(1, 2, Activations.KEPT, Place.HOST),
        MemoryPlan(2, 1, Activations.KEPT, Place.DEVICE),
        MemoryPlan(2, 1, Activations.RECOMPUTED, Place.DEVICE),
    ):
        masters.memory_plans = lambda *_, plan=plan: [plan]  # type: ignore[attr-defined]
        torch.cuda.reset_peak_memory_stats()
        one = trainer()
        assert one.engine.describe()["launch"] == "one CUDA graph", one.engine.describe()
        losses = [one.train_step() for _ in range(4)]
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"    {plan}: {milliseconds(one):.1f} ms, peak {peak:.1f} GiB", flush=True)
        close(losses, expected or losses, 1e-2)
        expected = expected or losses
        one.finish()
        del one


def test_all_weights_are_trained_in_24_gigabytes() -> None:
    assert_it_fits_into(24, None)


def test_adapters_are_trained_in_10_gigabytes() -> None:
    assert_it_fits_into(10, 4)


def test_adapters_are_trained_in_6_gigabytes() -> None:
    assert_it_fits_into(6, 4)


def test_too_small_a_card_is_the_users_to_mend() -> None:
    said = None
    with capped(14):
        try:
            trainer()
        except UserError as error:
            said = error
    assert said is not None, "it fitted"
    print(f"    {said}")


def assert_it_fits_into(gigabytes: float, rank: int | None) -> None:
    with capped(gigabytes):
        vae = model()
        with torch.no_grad():
            _encode(vae, torch.randn(8, 3, SD14.side, SD14.side), GPU)
        del vae
        small = trainer(rank=rank)
        spent = milliseconds(small)
        peak = torch.cuda.max_memory_reserved() / GIGABYTE
        print(f"    {spent:.1f} ms a step, {peak:.1f} GB reserved at most", flush=True)
        assert peak <= gigabytes


def test_a_checkpoint_is_written_beside_the_steps() -> None:
    for rank in (4, None):
        with tempfile.TemporaryDirectory() as folder:
            store = CheckpointStore(Path(folder) / "checkpoints", "key")
            writer = BackgroundWriter(store)
            one = trainer(rank=rank)
            one.train_step()
            expected = held(one.checkpoint({}))
            began = time.perf_counter()
            writer.submit(one.checkpoint({}), set())
            submitted = time.perf_counter()
            spent = milliseconds(one)
            writer.wait()
            written = time.perf_counter()
            saved = store.load(1)
            for name, weight in expected.weights.items():
                assert torch.equal(saved.weights[name], weight.cpu())
            for name, moment in expected.moments.items():
                assert torch.equal(saved.moments[name], moment.cpu())
            size = one.state_bytes() / GIGABYTE
            print(
                f"    {size:.2f} GB: training waited {submitted - began:.3f} s, written after "
                f"{written - began:.1f} s, {spent:.1f} ms a step meanwhile",
                flush=True,
            )
            one.finish()
            del one, expected


def test_the_model_is_saved_in_float32() -> None:
    one = trainer()
    one.train_step()
    expected = held(one.checkpoint({})).weights
    began = time.perf_counter()
    one.finish()
    with tempfile.TemporaryDirectory() as folder:
        one.model.save(Path(folder) / "model", lora=False)
        print(f"    saved in {time.perf_counter() - began:.1f} s", flush=True)
        loaded = StableDiffusion.load(Path(folder) / "model")
        for name, parameter in loaded.denoiser.named_parameters():
            assert torch.equal(parameter, expected[f"denoiser.{name}"].cpu())


def test_fifty_steps_stay_within_the_noise_of_float32() -> None:
    torch.backends.cudnn.allow_tf32 = False
    exact = trainer(settings=replace(FULL, compute_dtype=torch.float32))
    expected = [exact.train_step() for _ in range(50)]
    exact.finish()
    del exact
    torch.backends.cudnn.allow_tf32 = True
    ours = trainer()
    losses = [ours.train_step() for _ in range(50)]
    apart = [a - b for a, b in zip(losses, expected, strict=True)]
    steps = [b - a for a, b in itertools.pairwise(expected)]
    noise = (sum(x * x for x in steps) / len(steps)) ** 0.5
    worst, mean = max(map(abs, apart)), abs(sum(apart) / 50)
    print(f"    differ by {worst:.2e} at most, {mean:.2e} on average; noise {noise:.2e}")
    assert worst < 0.25 * noise
    assert mean < 0.05 * noise


def test_two_gpus_take_the_steps_of_one() -> None:
    if torch.cuda.device_count() < 2:
        print("    there are not two GPUs")
        return
    for method in ("full", "lora"):
        one = group(1, method, 4)[0]
        two = group(2, method, 4)
        for each in (one, *two):
            print(f"    {each}", flush=True)
        assert two[0]["losses"] == two[1]["losses"]
        assert two[0]["engine"]["launch"] == Launch.GRAPH.value
        close(two[0]["again"], two[0]["straight"], 5e-3)
        close(two[0]["losses"], one["losses"], 2e-2)
        same_share = group(2, method, 2 * PAIRS)
        print(f"    {PAIRS} pairs each: {same_share[0]['ms']:.1f} ms", flush=True)


def group(size: int, method: str, pairs: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        told = [str(size), method, str(pairs), f"{folder}/store"]
        command = [sys.executable, __file__, "--worker"]
        workers = [
            subprocess.Popen([*command, str(rank), *told], stdout=subprocess.PIPE, text=True)
            for rank in range(size)
        ]
        answers = [worker.communicate(timeout=300)[0] for worker in workers]
    return [json.loads(answer.splitlines()[-1]) for answer in answers]


def work(rank: int, size: int, method: str, pairs: int, store: str) -> None:
    """One worker of a group."""
    torch.cuda.set_device(rank)
    if size > 1:
        dist.init_process_group("nccl", init_method=f"file://{store}", rank=rank, world_size=size)
    one = trainer(pairs=pairs, rank=4 if method == "lora" else None)
    told: dict[str, Any] = {"losses": [one.train_step() for _ in range(6)]}
    keep_and_return(one, Path(f"{store}-checkpoints"), told)
    told |= {"ms": milliseconds(one), "engine": one.engine.describe()}
    one.collect()
    one.finish()
    if rank == 0:
        assert all(p.dtype == torch.float32 for p in one.parameters.values())
    print(json.dumps(told), flush=True)
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


def keep_and_return(one: Trainer, folder: Path, told: dict[str, Any]) -> None:
    """Keeps a checkpoint, goes on for three steps, and once more from the checkpoint."""
    one.collect()
    checkpoints = CheckpointStore(folder, "key")
    if one.world.rank == 0:
        checkpoints.save(one.checkpoint({}))
    told["straight"] = [one.train_step() for _ in range(3)]
    one.world.agree(False)  # Until the first worker is here, and has written.
    state = checkpoints.latest()
    assert state is not None
    one.restore(state)
    told["again"] = [one.train_step() for _ in range(3)]


def main() -> int:
    names = [name for name in globals() if name.startswith("test_")]
    if sys.argv[1:2] == ["--one"]:
        globals()[sys.argv[2]]()
        return 0
    if sys.argv[1:2] == ["--worker"]:
        rank, size, method, pairs, store = sys.argv[2:]
        work(int(rank), int(size), method, int(pairs), store)
        return 0
    failed = []
    for name in names:
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        began = time.perf_counter()
        print(f"=== {name}", flush=True)
        environment = {
            **os.environ,
            "PYTHONFAULTHANDLER": "1",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        }
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, env=environment)
        outcome = "passed" if done.returncode == 0 else f"FAILED ({done.returncode})"
        print(f"    {outcome} in {time.perf_counter() - began:.1f} s", flush=True)
        failed += [name] if done.returncode else []
    print(f"{len(failed)} failed: {failed}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
