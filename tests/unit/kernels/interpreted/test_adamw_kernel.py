"""The AdamW kernels against torch.optim.AdamW and torch.nn.utils.clip_grad_norm_."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dreambooth.kernels import adamw
from dreambooth.kernels.adamw import FusedAdamW, MasterOptimizer, TorchAdamW, make_adamw

# One bf16 unit in the last place, relative: the interpreter cuts where a GPU rounds.
BF16_ULP = 2**-7
# Two fp32 units in the last place at one; more than that and a formula differs.
RTOL, ATOL = 3e-6, 3e-7


def some_values() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    conv = torch.randn(16, 5, 3, 3, generator=generator)
    return [
        torch.randn(1, generator=generator),
        torch.randn(4097, generator=generator),
        conv.contiguous(memory_format=torch.channels_last),
        torch.randn(64, 40, generator=generator),
    ]


def parameters_of(values: Sequence[Tensor], dtype: torch.dtype) -> list[nn.Parameter]:
    return [nn.Parameter(value.clone().to(dtype)) for value in values]


def gradients_for(step: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    # Below and above the norm that is clipped, and zero.
    size = (0.0, 0.001, 1.0)[step % 3]
    return [
        (torch.empty_like(value).normal_(generator=generator) * size).to(dtype)
        for value in some_values()
    ]


@pytest.mark.parametrize("kind", [FusedAdamW, TorchAdamW])
@pytest.mark.parametrize("gradient_type", [torch.bfloat16, torch.float32])
def test_twenty_steps_end_where_torchs_adamw_with_clipping_ends(
    kind: type[TorchAdamW], gradient_type: torch.dtype
) -> None:
    expected = parameters_of(some_values(), torch.float32)
    reference = torch.optim.AdamW(expected, lr=1e-2, weight_decay=0.05)
    working = parameters_of(some_values(), torch.bfloat16)
    ours = kind(working, lr=1e-2, weight_decay=0.05, max_norm=1.0, masters=some_values())

    for step in range(20):
        gradients = gradients_for(step, gradient_type)
        for parameter, gradient in zip(expected, gradients, strict=True):
            parameter.grad = gradient.float().clone()
        norm = nn.utils.clip_grad_norm_(expected, 1.0)
        reference.step()
        ours.step(gradients)
        torch.testing.assert_close(ours.norm, norm, rtol=1e-6, atol=0.0)

    for index, parameter in enumerate(expected):
        state = reference.state[parameter]
        torch.testing.assert_close(ours.masters[index], parameter.detach(), rtol=RTOL, atol=ATOL)
        torch.testing.assert_close(ours.exp_avg[index], state["exp_avg"], rtol=RTOL, atol=ATOL)
        torch.testing.assert_close(
            ours.exp_avg_sq[index], state["exp_avg_sq"], rtol=RTOL, atol=ATOL
        )
        torch.testing.assert_close(
            working[index].detach().float(), parameter.detach(), rtol=BF16_ULP, atol=1e-9
        )
        assert working[index].stride() == parameter.stride()
    assert int(ours.step_count) == 20


def test_the_learning_rate_on_the_device_counts_from_the_next_step() -> None:
    updates = []
    for rate in (1e-3, 2e-3):
        optimizer = FusedAdamW(
            parameters_of(some_values(), torch.bfloat16), lr=5.0, weight_decay=0.0
        )
        before = optimizer.masters[1].clone()
        optimizer.learning_rate.fill_(rate)
        optimizer.step(gradients_for(2, torch.bfloat16))
        updates.append(optimizer.masters[1] - before)
    torch.testing.assert_close(updates[1], 2 * updates[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", [FusedAdamW, TorchAdamW])
def test_accumulated_gradients_are_averaged_before_clipping(kind: type[TorchAdamW]) -> None:
    once = kind(parameters_of(some_values(), torch.bfloat16), lr=1e-2, max_norm=1.0)
    four = kind(
        parameters_of(some_values(), torch.bfloat16), lr=1e-2, max_norm=1.0, gradient_scale=0.25
    )
    gradients = gradients_for(1, torch.float32)
    once.step(gradients)
    four.step([4 * gradient for gradient in gradients])
    torch.testing.assert_close(once.norm, four.norm)
    for a, b in zip(once.masters, four.masters, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", [FusedAdamW, TorchAdamW])
def test_a_parameter_without_gradient_stays_as_it_is(kind: type[TorchAdamW]) -> None:
    parameters = parameters_of(some_values(), torch.bfloat16)
    optimizer = kind(parameters, lr=1e-2, max_norm=1.0)
    before = [master.clone() for master in optimizer.masters]
    gradients: list[Tensor | None] = [*gradients_for(2, torch.bfloat16)]
    gradients[1] = None
    optimizer.step(gradients)
    assert torch.equal(optimizer.masters[1], before[1])
    assert not torch.equal(optimizer.masters[2], before[2])
    assert torch.equal(parameters[1].detach().float(), before[1])


@pytest.mark.parametrize("kind", [FusedAdamW, TorchAdamW])
def test_fp32_parameters_are_their_own_masters(kind: type[TorchAdamW]) -> None:
    parameters = parameters_of(some_values(), torch.float32)
    optimizer = kind(parameters, lr=1e-2)
    optimizer.step(gradients_for(2, torch.float32))
    for parameter, master, value in zip(parameters, optimizer.masters, some_values(), strict=True):
        assert parameter.data_ptr() == master.data_ptr()
        assert not torch.equal(parameter.detach(), value)


@pytest.mark.parametrize("kind", [FusedAdamW, TorchAdamW])
def test_a_run_goes_on_from_saved_state_bit_for_bit(kind: type[TorchAdamW]) -> None:
    def made() -> MasterOptimizer:
        return kind(parameters_of(some_values(), torch.bfloat16), lr=1e-2, max_norm=1.0)

    straight, first, second = made(), made(), made()
    for step in range(6):
        straight.step(gradients_for(step, torch.bfloat16))
    for step in range(3):
        first.step(gradients_for(step, torch.bfloat16))
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        second.step(gradients_for(step, torch.bfloat16))
    for a, b in zip(straight.masters, second.masters, strict=True):
        assert torch.equal(a, b)


def test_gradients_in_another_memory_order_are_refused() -> None:
    optimizer = FusedAdamW(parameters_of(some_values(), torch.bfloat16), lr=1e-2)
    gradients = gradients_for(1, torch.bfloat16)
    gradients[2] = gradients[2].contiguous()
    with pytest.raises(ValueError, match=r"gradient 2 has shape \(16, 5, 3, 3\)"):
        optimizer.step(gradients)


def test_gradients_of_several_types_are_refused() -> None:
    optimizer = FusedAdamW(parameters_of(some_values(), torch.bfloat16), lr=1e-2)
    gradients = gradients_for(1, torch.bfloat16)
    gradients[0] = gradients[0].float()
    with pytest.raises(ValueError, match="one floating type"):
        optimizer.step(gradients)


class Capture:
    """Keeps what a step would launch, as a CUDA graph does, for later."""

    def __init__(self, optimizer: FusedAdamW, patch: pytest.MonkeyPatch) -> None:
        self.launches: list[dict[str, Any]] = []
        self._launch = optimizer._launcher.launch
        with patch.context() as patched:
            patched.setattr(adamw, "_is_capturing", lambda device: True)
            patched.setattr(optimizer._launcher, "launch", lambda **o: self.launches.append(o))
            optimizer.step()

    def replay(self) -> None:
        for launch in self.launches:
            self._launch(**launch)


def test_a_captured_step_reads_the_gradients_bound_after_the_capture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eager, captured = (
        FusedAdamW(parameters_of(some_values(), torch.bfloat16), lr=1e-2, max_norm=1.0)
        for _ in range(2)
    )
    for parameter, gradient in zip(
        captured.parameters, gradients_for(2, torch.bfloat16), strict=True
    ):
        parameter.grad = gradient
    capture = Capture(captured, monkeypatch)
    with pytest.raises(RuntimeError, match=r"call bind\(\) first"):
        captured.step()
    captured.bind()
    # Later eager steps use another table and don't touch the captured one.
    other = gradients_for(1, torch.bfloat16)
    for optimizer in (eager, captured):
        optimizer.step(other)
    eager.step(gradients_for(2, torch.bfloat16))
    capture.replay()
    for a, b in zip(captured.masters, eager.masters, strict=True):
        assert torch.equal(a, b)


def test_the_kernels_are_chosen_where_they_run() -> None:
    chosen = make_adamw(parameters_of(some_values(), torch.bfloat16), lr=1e-2)
    assert isinstance(chosen, FusedAdamW)
