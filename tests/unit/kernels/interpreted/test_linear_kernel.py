"""The linear layer's backward against torch."""

import pytest
import torch
import torch.nn.functional as F

from dreambooth.kernels.device.sums import column_sums
from dreambooth.kernels.linear import linear


@pytest.mark.parametrize("rows", [1, 100, 700])
def test_columns_are_summed_whatever_the_number_of_rows(rows: int) -> None:
    x = torch.randn(rows, 70)
    torch.testing.assert_close(column_sums(x, torch.float32), x.sum(0), rtol=1e-5, atol=1e-4)


def test_values_and_gradients_are_torchs() -> None:
    generator = torch.Generator().manual_seed(8)
    mine = [
        torch.randn(size, generator=generator).requires_grad_()
        for size in ((2, 9, 12), (20, 12), (20,))
    ]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in mine]
    y, expected = linear(mine[0], mine[1], mine[2]), F.linear(theirs[0], theirs[1], theirs[2])
    torch.testing.assert_close(y, expected)
    dy = torch.randn(y.shape, generator=generator)
    y.backward(dy)
    expected.backward(dy)
    for a, b in zip(mine, theirs, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad, b.grad)
        assert a.grad.stride() == a.stride()
