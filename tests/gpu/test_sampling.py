"""Drawing on a GPU with networks of Stable Diffusion's size and random weights.

Prints times; nothing is asserted about these. It also runs where pytest isn't installed:
`PYTHONPATH=runtime:. python tests/gpu/test_sampling.py [WORD]` runs the tests with WORD in their
names.
"""

import functools
import gc
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPTokenizer

import dreambooth.models
from bench.gpu.architecture import SD14, TEXT_LENGTH
from dreambooth.kernels import rehearsal
from dreambooth.models.conditioning import Conditioning
from dreambooth.models.load import load_model
from dreambooth.models.schedulers import SCHEDULERS
from dreambooth.models.stable_diffusion import StableDiffusion
from dreambooth.sampling import machines
from dreambooth.sampling.batches import FittingBatches
from dreambooth.sampling.denoising import EagerDenoiser
from dreambooth.sampling.machines import GpuMachine, load_machine
from dreambooth.sampling.sampler import Sampler
from dreambooth.sampling.settings import PictureRequest, SamplingSettings
from dreambooth.sampling.studio import draw
from tests.gpu.compiled import compiled

GPU = torch.device("cuda")
BUILTIN = Path(dreambooth.models.__file__).parent / "builtin" / "emoji"
PNDM = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
FEW_STEPS = SamplingSettings("ddim", 8, 7.5, "blurred")
NOTEBOOK = SamplingSettings(None, 50, 7.5)
PROMPTS = ["photo of a dog", "photo of a cat", "a dog in a bucket", "a castle"]


def model(dtype: torch.dtype) -> StableDiffusion:
    tokenizer = CLIPTokenizer.from_pretrained(BUILTIN / "tokenizer")
    tokenizer.model_max_length = TEXT_LENGTH
    with torch.device(GPU):
        parts = SD14.unet(), SD14.vae(), SD14.text_encoder()
    return StableDiffusion(*parts, tokenizer, PNDM).to(GPU, dtype)


@functools.cache
def machine() -> GpuMachine:
    return GpuMachine(model(torch.bfloat16), GPU)


def requests(count: int) -> list[PictureRequest]:
    return [PictureRequest(i, 0, PROMPTS[i % len(PROMPTS)], seed=i) for i in range(count)]


def drawn(sampler: Sampler, count: int, settings: SamplingSettings) -> NDArray[np.uint8]:
    """So many pictures in one batch."""
    wanted = requests(count)
    return sampler.sample([r.prompt for r in wanted], [r.seed for r in wanted], settings)


def difference(some: NDArray[np.uint8], others: NDArray[np.uint8]) -> float:
    """Mean absolute difference in grey levels of 255."""
    return float(np.abs(some.astype(int) - others.astype(int)).mean())


def test_a_rehearsal_leaves_nothing_to_compile() -> None:
    rehearsed: list[set[str]] = []
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ):
        os.environ["TRITON_CACHE_DIR"] = cache

        def rehearse(what: str, work: Callable[[], object]) -> None:
            rehearsal.rehearse(what, work)
            rehearsed.append(compiled(cache))

        with mock.patch.object(machines, "rehearse", rehearse):
            ours = load_machine(str(BUILTIN), None, GPU)
            list(draw(ours, requests(4), FEW_STEPS))
        print(f"    {len(rehearsed[0])} kernels are compiled ahead", flush=True)
        assert rehearsed[0] and compiled(cache) == rehearsed[0], compiled(cache) - rehearsed[0]


def test_a_graph_draws_bit_for_bit_what_its_kernels_draw_one_by_one() -> None:
    ours = machine()
    graphed = drawn(ours.sampler, 4, FEW_STEPS)
    again = drawn(ours.sampler, 4, FEW_STEPS)
    eager = Sampler(ours._model, GPU, denoiser=EagerDenoiser(ours._model), decoder=ours._decoder)
    assert np.array_equal(graphed, again)
    assert np.array_equal(graphed, drawn(eager, 4, FEW_STEPS))
    assert ours._graphed._graphs, "nothing was recorded"


def test_pictures_of_a_batch_are_those_drawn_alone_up_to_rounding() -> None:
    """With a trained model: one of random weights makes a new picture of any rounding."""
    ours = GpuMachine(load_model(BUILTIN).to(GPU, torch.bfloat16), GPU)
    settings = SamplingSettings("dpmsolver++", 20, 3.0)
    together = drawn(ours.sampler, 16, settings)
    alone = np.concatenate(
        [ours.sampler.sample([r.prompt], [r.seed], settings) for r in requests(4)]
    )
    exact = drawn(Sampler(load_model(BUILTIN).to(GPU), GPU), 4, settings)
    by_batch, by_type = difference(together[:4], alone), difference(alone, exact)
    apart = difference(exact[:2], exact[2:])
    print(
        f"    mean difference in grey levels: batch of 16 against alone {by_batch:.3f}, alone "
        f"against float32 {by_type:.3f}, two pictures {apart:.1f}",
        flush=True,
    )
    assert by_batch <= 1.5 * by_type + 0.25
    assert by_type < 0.25 * apart


def test_one_call_of_the_denoiser_moves_a_row_by_its_rounding_alone() -> None:
    ours, exact = machine()._model, model(torch.float32)
    torch.manual_seed(0)
    latents = torch.randn((32, *ours.latent_shape), device=GPU)
    timestep = torch.tensor(500, device=GPU)
    with torch.no_grad():
        ids = tuple(each.to(GPU) for each in ours.tokenize(PROMPTS * 8))
        conditioning = ours.encode_prompt(ids)
        few = Conditioning(conditioning.tokens[:2])
        together = EagerDenoiser(ours)(latents, timestep, conditioning, 1.0)[:2]
        alone = EagerDenoiser(ours)(latents[:2], timestep, few, 1.0)
        true = EagerDenoiser(exact)(latents[:2], timestep, few.to(dtype=torch.float32), 1.0)
    by_batch = float((together - alone).norm() / true.norm())
    by_type = float((alone - true).norm() / true.norm())
    print(f"    relative: batch {by_batch:.2e}, bfloat16 {by_type:.2e}", flush=True)
    assert by_batch <= 1.5 * by_type and by_type < 3e-2


def test_no_step_waits_for_the_gpu() -> None:
    ours = machine()
    # UniPC of diffusers moves numbers to the device in every step.
    for name in [None, *(name for name in SCHEDULERS if name != "unipc")]:
        settings = SamplingSettings(name, 4, 7.5)
        drawn(ours.sampler, 2, settings)
        torch.cuda.set_sync_debug_mode("error")
        try:
            developing = ours.sampler.start(PROMPTS[:2], [0, 1], settings)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert developing.take().pictures.shape == (2, 512, 512, 3)


def test_too_little_memory_makes_smaller_batches_and_loses_no_picture() -> None:
    ours = machine()
    ours.release()
    # One step: random weights make a new picture of what several steps add up.
    settings = SamplingSettings("ddim", 1, 7.5)
    whole = np.concatenate([part.pictures for part in draw(ours, requests(8), settings)])
    ours.release()
    total = torch.cuda.get_device_properties(GPU).total_memory
    try:
        for gib in (2.0, 1.5, 1.2, 1.0):
            torch.cuda.set_per_process_memory_fraction(
                (torch.cuda.memory_allocated() + gib * 2**30) / total
            )
            batches = FittingBatches(8)
            parts = draw(_In(ours, batches), requests(8), settings)
            pictures = np.concatenate([part.pictures for part in parts])
            ours.release()
            print(
                f"    {gib} GiB beside the weights: batches of {batches.largest}, "
                f"{ours._decoder.together} decoded together",
                flush=True,
            )
            assert pictures.shape == whole.shape
            assert difference(pictures, whole) < 3.0
            if batches.largest < 8:
                return
        raise AssertionError("memory was never too little")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


class _In:
    """The machine with batches that nobody measured."""

    def __init__(self, machine: GpuMachine, batches: FittingBatches) -> None:
        self.sampler, self.release, self._batches = machine.sampler, machine.release, batches

    def batches(self, settings: SamplingSettings) -> FittingBatches:
        return self._batches


def test_seconds_a_picture() -> None:
    machine.cache_clear()
    gc.collect()
    torch.cuda.empty_cache()
    start = time.perf_counter()
    ours = machine()
    torch.cuda.synchronize()
    print(f"    model made ready in {time.perf_counter() - start:.2f} s", flush=True)
    start = time.perf_counter()
    ours.batches(NOTEBOOK)
    print(
        f"    {ours._largest} pictures a batch at most, {ours._decoder.together} decoded together",
        flush=True,
    )
    for count in (5, 5, 60):
        torch.cuda.reset_peak_memory_stats()
        start, first = time.perf_counter(), 0.0
        for part in draw(ours, requests(count), NOTEBOOK):
            first = first or time.perf_counter() - start
            assert part.pictures.dtype == np.uint8
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(
            f"    {count} pictures in {seconds:.2f} s: {seconds / count:.3f} s each, first after "
            f"{first:.2f} s, peak {peak:.1f} GiB",
            flush=True,
        )


def test_seconds_that_a_new_size_of_batch_costs() -> None:
    """Libraries choose, and partly compile, kernels for every shape."""
    ours = machine()
    denoiser, conditioning = EagerDenoiser(ours._model), ours.sampler._encode(["a dog"])
    timestep = torch.tensor(500, device=GPU)
    with torch.no_grad():
        for cudnn_attention, sizes in ((True, (12, 14, 18)), (False, (13, 15, 19))):
            torch.backends.cuda.enable_cudnn_sdp(cudnn_attention)
            for size in sizes:
                latents = torch.randn((size, *ours._model.latent_shape), device=GPU)
                spent = []
                for _ in range(3):
                    torch.cuda.synchronize()
                    start = time.perf_counter()
                    rows = conditioning.repeat_interleave(2 * size)
                    assert denoiser(latents, timestep, rows, 7.5).isfinite().all()
                    torch.cuda.synchronize()
                    spent.append(f"{time.perf_counter() - start:.3f}")
                print(
                    f"    {2 * size} rows, cuDNN's attention {cudnn_attention}: calls of "
                    f"{', '.join(spent)} s",
                    flush=True,
                )
    torch.backends.cuda.enable_cudnn_sdp(True)


def main() -> int:
    failed = 0
    for name, test in list(globals().items()):
        if name.startswith("test_") and (len(sys.argv) < 2 or sys.argv[1] in name):
            start = time.perf_counter()
            print(f"=== {name}", flush=True)
            try:
                test()
                print(f"    passed in {time.perf_counter() - start:.1f} s", flush=True)
            except Exception:
                failed += 1
                traceback.print_exc()
            torch.cuda.empty_cache()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
