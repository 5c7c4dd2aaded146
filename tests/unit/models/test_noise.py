"""How pictures are mixed with noise, and what is learned of the mixture."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from dreambooth.errors import UserError
from dreambooth.models.noise import DiffusionProcess, FlowProcess

LATENTS = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
NOISE = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(2))
SCHEDULES: list[dict[str, Any]] = [
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 600},
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_diffusion_is_that_of_diffusers_bit_for_bit(schedule: dict[str, Any], kind: str) -> None:
    config = {**schedule, "prediction_type": kind}
    process, scheduler = DiffusionProcess(config), DDPMScheduler(**config)
    last = scheduler.config.num_train_timesteps - 1
    times = torch.tensor([0, 1, 301, last])
    noisy = scheduler.add_noise(LATENTS, NOISE, times)
    assert torch.equal(process.add_noise(LATENTS, NOISE, times), noisy)
    target = NOISE if kind == "epsilon" else scheduler.get_velocity(LATENTS, NOISE, times)
    assert torch.equal(process.target(LATENTS, NOISE, times), target)


def test_a_share_of_diffusion_is_the_timestep_that_it_falls_into() -> None:
    process = DiffusionProcess({})
    shares = torch.tensor([0.0, 0.0009999, 0.001, 0.5, 0.9999999999], dtype=torch.float64)
    assert process.timesteps(shares).tolist() == [0, 0, 1, 500, 999]
    # float32 has nothing between this and one.
    assert process.timesteps(torch.tensor([0.99999997])).tolist() == [999]


def test_what_predicts_something_else_is_refused() -> None:
    with pytest.raises(UserError, match="predicts 'sample'"):
        DiffusionProcess({"prediction_type": "sample"})


def evenly(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def test_times_of_a_flow_are_logit_normal_and_shifted_as_the_scheduler_is() -> None:
    plain = FlowProcess({"shift": 1.0}).timesteps(evenly(4000)) / 1000
    logits = torch.logit(plain.double())
    assert logits.mean().abs() < 0.01
    assert abs(logits.std() - 1.0) < 0.01
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    shifted = FlowProcess({"shift": 3.0}).timesteps(evenly(4000)).numpy()
    # The scheduler has the shifted values of the evenly spaced ones, falling.
    known = scheduler.timesteps.numpy()[::-1]
    wanted = np.interp(plain.numpy(), np.arange(1, 1001) / 1000, known)
    np.testing.assert_allclose(shifted, wanted, rtol=2e-3, atol=2e-3)


def test_times_at_the_ends_of_a_flow_can_be_used() -> None:
    ends = torch.tensor([0.0, 1.0 - 1e-16], dtype=torch.float64)
    times = FlowProcess({"shift": 3.0}).timesteps(ends)
    assert times.isfinite().all()
    assert 0 < times[0] < 5
    assert 999 < times[1] <= 1000


def test_a_flow_goes_straight_from_the_picture_to_the_noise() -> None:
    process = FlowProcess({})
    times = torch.tensor([1.0, 250.0, 600.0, 1000.0])
    noisy = process.add_noise(LATENTS, NOISE, times)
    way = process.target(LATENTS, NOISE, times)
    back = noisy - (times / 1000).view(-1, 1, 1, 1) * way
    torch.testing.assert_close(back, LATENTS)
    torch.testing.assert_close(noisy[3], NOISE[3])
    scheduler = FlowMatchEulerDiscreteScheduler()
    torch.testing.assert_close(noisy, scheduler.scale_noise(LATENTS, times, NOISE))
