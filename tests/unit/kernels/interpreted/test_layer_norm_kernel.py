"""The layer norm kernels against torch, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreambooth.kernels.device import layer_norm as device
from dreambooth.kernels.layer_norm import add_layer_norm, layer_norm

RTOL, ATOL = 1e-4, 1e-5


def a_norm(width: int) -> nn.LayerNorm:
    torch.manual_seed(7)
    norm = nn.LayerNorm(width)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def exact(norm: nn.LayerNorm, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Torch's result in fp64, and the parameters it came from."""
    weights = [p.detach().double().requires_grad_() for p in (norm.weight, norm.bias)]
    return F.layer_norm(x, x.shape[-1:], weights[0], weights[1], norm.eps), weights


def assert_gradients(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=RTOL, atol=5e-5)


@pytest.mark.parametrize("shape", [(2, 9, 320), (3, 7), (1, 1, 1)])
def test_values_and_gradients_are_torchs(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several tiles for each program of the backward.
    monkeypatch.setattr(device, "PROGRAMS", 2)
    monkeypatch.setattr(device, "TILE", 1024)
    norm = a_norm(shape[-1])
    x = (torch.randn(shape) + 4.0).requires_grad_()
    theirs = x.detach().double().requires_grad_()
    y = layer_norm(x, norm)
    expected, weights = exact(norm, theirs)
    torch.testing.assert_close(y.double(), expected, rtol=RTOL, atol=ATOL)
    dy = torch.randn(shape)
    y.backward(dy)
    expected.backward(dy)
    assert_gradients([x, norm.weight, norm.bias], [theirs, *weights])


def test_a_sum_and_its_norm_are_torchs_whichever_is_used() -> None:
    norm = a_norm(48)
    for sum_counts, norm_counts in ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0)):
        norm.zero_grad()
        inputs = [torch.randn(2, 5, 48).requires_grad_() for _ in range(2)]
        theirs = [tensor.detach().double().requires_grad_() for tensor in inputs]
        added, normed = add_layer_norm(inputs[0], inputs[1], norm)
        expected = theirs[0] + theirs[1]
        expected_normed, weights = exact(norm, expected)
        torch.testing.assert_close(added.double(), expected, rtol=RTOL, atol=ATOL)
        torch.testing.assert_close(normed.double(), expected_normed, rtol=RTOL, atol=ATOL)
        slopes = [torch.randn(2, 5, 48) * counts for counts in (sum_counts, norm_counts)]
        torch.autograd.backward([added, normed], slopes)
        torch.autograd.backward([expected, expected_normed], [s.double() for s in slopes])
        assert_gradients([*inputs, norm.weight, norm.bias], [*theirs, *weights])
