"""The doubling kernels against torch, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from dreambooth.kernels.upsampling import double


@pytest.mark.parametrize("shape", [(2, 70, 5, 7), (1, 3, 1, 1)])
def test_values_and_gradients_are_torchs(shape: tuple[int, ...]) -> None:
    mine = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    theirs = mine.detach().clone().requires_grad_()
    y, expected = double(mine), F.interpolate(theirs, scale_factor=2.0, mode="nearest")
    assert torch.equal(y, expected)
    assert y.is_contiguous(memory_format=torch.channels_last)
    dy = torch.randn(y.shape)
    y.backward(dy)
    expected.backward(dy)
    assert mine.grad is not None
    torch.testing.assert_close(mine.grad, theirs.grad, check_stride=False)
