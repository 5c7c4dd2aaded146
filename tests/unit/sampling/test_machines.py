"""A model made ready to draw on one device."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from dreambooth.kernels.rehearsal import rehearse
from dreambooth.models.load import load_model
from dreambooth.models.schedulers import make_scheduler
from dreambooth.sampling import machines
from dreambooth.sampling.machines import GpuMachine, draw_shapes, load_machine
from dreambooth.sampling.settings import PictureRequest, SamplingSettings
from dreambooth.sampling.studio import Machine, draw
from tests.compiling import kernels_asked_for
from tests.tiny_families import make_tiny_sd3, make_tiny_xl

CPU = torch.device("cpu")
GUIDED = SamplingSettings("ddim", 3, 5.0, "blurred")


def requests(count: int) -> list[PictureRequest]:
    return [PictureRequest(index, 0, f"dog {index % 3}", seed=index) for index in range(count)]


def drawn(
    machine: Machine, wanted: list[PictureRequest], settings: SamplingSettings
) -> NDArray[np.uint8]:
    return np.concatenate([part.pictures for part in draw(machine, wanted, settings)])


def test_a_cpu_draws_the_same_bits_however_many_are_drawn_with_them(tiny_model: Path) -> None:
    machine = load_machine(str(tiny_model), None, CPU)
    many = drawn(machine, requests(11), GUIDED)
    few = drawn(machine, requests(11)[7:10], GUIDED)
    assert np.array_equal(many[7:10], few)


def test_half_precision_on_a_cpu_stays_near_diffusers_in_full_precision(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "sampling_dtype", lambda device: torch.bfloat16)
    ours = drawn(load_machine(str(tiny_model), None, CPU), requests(1), GUIDED)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler("ddim", dict(pipeline.scheduler.config))
    [theirs] = pipeline(
        "dog 0",
        negative_prompt="blurred",
        num_inference_steps=3,
        guidance_scale=5.0,
        latents=torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)),
    ).images
    assert np.abs(ours[0].astype(int) - np.asarray(theirs).astype(int)).mean() < 3.0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The CPU stands for a GPU of as many free bytes as it says."""
    told: dict[str, Any] = {"free": 2**30}
    monkeypatch.setattr(machines, "free_memory", lambda device: told["free"])
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(
        machines, "StreamDecoder", lambda model, device, together, checker: SimpleNamespace()
    )
    return told


def test_a_gpu_is_asked_for_its_memory_once_for_each_kind_of_call(
    tiny_model: Path, gpu: dict[str, Any]
) -> None:
    machine = GpuMachine(load_model(tiny_model), CPU)
    plain = SamplingSettings("ddim", 3, 1.0)
    guided, unguided = (machine.batches(each) for each in (GUIDED, plain))
    assert unguided.next(10**6) == 2 * guided.next(10**6) > 2
    # What was drawn since takes memory, which is no reason for other batches.
    gpu["free"] = 0
    assert machine.batches(GUIDED).next(10**6) == guided.next(10**6)
    assert machine.batches(GUIDED).next(5) == 5
    # The next list is drawn in a size that is known.
    fewer = machine.batches(GUIDED)
    assert (fewer.next(4), fewer.rows(4)) == (4, 5)


@pytest.mark.parametrize("make", [make_tiny_xl, make_tiny_sd3])
def test_other_families_are_drawn_with_the_same_code(tmp_path: Path, make: Any) -> None:
    machine = load_machine(str(make(tmp_path / "model")), None, CPU)
    settings = SamplingSettings(None, 2, 5.0)
    pictures = drawn(machine, requests(9), settings)
    assert pictures.shape == (9, 32, 32, 3) and len(np.unique(pictures, axis=0)) == 9


def test_what_a_gpu_draws_with_is_compiled_before_the_first_batch(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = kernels_asked_for(monkeypatch, tmp_path)
    model = load_model(tiny_model)
    conditioning = model.encode_prompt(model.tokenize(["a robot", "a robot"])).to(
        dtype=torch.bfloat16
    )
    latents, timestep = torch.zeros((2, *model.latent_shape)), torch.tensor(3)
    rehearse("drawing", lambda: draw_shapes(tiny_model, latents, timestep, conditioning, 1))
    assert asked >= {"_forward", "_double"} and not any("backward" in name for name in asked)
