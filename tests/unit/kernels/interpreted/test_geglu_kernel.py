"""The GEGLU kernels against torch, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from dreambooth.kernels.geglu import geglu


# Absolute: what an erf good to 1.5e-7 makes of factors up to some ten.
@pytest.mark.parametrize("shape", [(2, 3, 2048 + 6), (5, 2), (1, 4, 64)])
def test_values_and_gradients_are_torchs(shape: tuple[int, ...]) -> None:
    mine = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 3
    theirs = mine.double().requires_grad_()
    mine.requires_grad_()
    y = geglu(mine)
    hidden, gate = theirs.chunk(2, dim=-1)
    expected = hidden * F.gelu(gate)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=5e-6)

    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    y.backward(dy)
    expected.backward(dy)
    assert mine.grad is not None
    torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-5, atol=5e-6)


def test_rows_that_are_not_contiguous_are_read_right() -> None:
    x = torch.randn(4, 16, 3, generator=torch.Generator().manual_seed(5)).transpose(1, 2)
    assert torch.equal(geglu(x), geglu(x.contiguous()))
