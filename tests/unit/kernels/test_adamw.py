"""What the optimizers say where there is no GPU."""

import pytest
import torch
from torch import nn

from dreambooth.kernels.adamw import FusedAdamW, TorchAdamW, make_adamw
from dreambooth.kernels.availability import check_available


def a_parameter(dtype: torch.dtype = torch.bfloat16) -> nn.Parameter:
    return nn.Parameter(torch.ones(8, 8, dtype=dtype))


def test_the_cpu_gets_torchs_own_operations() -> None:
    assert check_available("cpu") == "the tensors are on the CPU"
    assert type(make_adamw([a_parameter()], lr=1e-3)) is TorchAdamW


def test_asking_for_the_kernels_on_the_cpu_says_why_not() -> None:
    with pytest.raises(RuntimeError, match=r"the tensors are on the CPU\. Use TorchAdamW"):
        FusedAdamW([a_parameter()], lr=1e-3)


def test_parameters_with_gaps_are_refused() -> None:
    gaps = nn.Parameter(torch.ones(8, 16)[:, ::2])
    with pytest.raises(ValueError, match=r"parameter 1 of shape .* is not dense"):
        TorchAdamW([a_parameter(torch.float32), gaps], lr=1e-3)


def test_parameters_of_several_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bfloat16 on cpu, torch\.float32 on cpu"):
        TorchAdamW([a_parameter(), a_parameter(torch.float32)], lr=1e-3)


def test_state_of_another_model_is_refused_before_anything_is_changed() -> None:
    optimizer = TorchAdamW([a_parameter()], lr=1e-3)
    state = optimizer.state_dict() | {
        "exp_avg_sq": [torch.zeros(3)],
        "masters": [torch.zeros(8, 8)],
    }
    with pytest.raises(ValueError, match=r"exp_avg_sq\[0\] has shape \(3,\), its parameter"):
        optimizer.load_state_dict(state)
    assert torch.equal(optimizer.masters[0], torch.ones(8, 8))
