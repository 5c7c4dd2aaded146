"""How a backend is chosen; what it costs is measured on a GPU only."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend

from dreambooth.kernels import attention as module
from dreambooth.kernels.attention import Problem, attention, choose_backend, chosen_backends


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_chosen", {})


def a_problem(length: int = 64) -> Problem:
    rows = ((1, 8, length, 40), (length * 320, 40, 320, 1))
    return Problem(rows, rows, rows, torch.bfloat16, torch.device("cuda", 0))


class Timer:
    """Says how long a backend takes, and counts how often it was asked."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds
        self.asked = 0

    def __call__(self, problem: Problem, backend: SDPBackend) -> float:
        self.asked += 1
        if backend.name not in self.seconds:
            raise RuntimeError("No available kernel. Aborting execution.")
        return self.seconds[backend.name]


def test_the_fastest_backend_is_chosen_once_for_a_shape() -> None:
    timer = Timer(CUDNN_ATTENTION=3.0, FLASH_ATTENTION=1.0, EFFICIENT_ATTENTION=2.0)
    assert choose_backend(a_problem(), timer) is SDPBackend.FLASH_ATTENTION
    assert choose_backend(a_problem(), timer) is SDPBackend.FLASH_ATTENTION
    assert timer.asked == 3
    choose_backend(a_problem(128), timer)
    assert timer.asked == 6
    assert chosen_backends()[a_problem()] == "FLASH_ATTENTION"


def test_a_backend_that_cannot_is_not_chosen() -> None:
    timer = Timer(EFFICIENT_ATTENTION=2.0)
    assert choose_backend(a_problem(), timer) is SDPBackend.EFFICIENT_ATTENTION


def test_torch_chooses_where_none_can() -> None:
    assert choose_backend(a_problem(), Timer()) is None
    assert chosen_backends() == {a_problem(): "torch's choice"}


def test_on_the_cpu_attention_is_torchs() -> None:
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    mask = torch.zeros(2, 1, 6, 6).masked_fill(torch.rand(2, 1, 6, 6) > 0.8, -1e4)
    for given in (None, mask):
        expected = F.scaled_dot_product_attention(query, key, value, attn_mask=given)
        assert torch.equal(attention(query, key, value, given), expected)
    assert chosen_backends() == {}
