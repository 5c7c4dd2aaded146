"""The residual kernel against torch, forward and backward."""

import torch

from dreambooth.kernels.residual import add_residual


def test_values_and_gradients_are_torchs() -> None:
    generator = torch.Generator().manual_seed(6)
    x, residual = torch.randn(2, 2, 70, 5, 7, generator=generator).requires_grad_().unbind()
    bias = torch.randn(70, generator=generator).requires_grad_()
    mine = [x.detach().contiguous(memory_format=torch.channels_last), residual.detach(), bias]
    theirs = [tensor.detach().double().requires_grad_() for tensor in mine]
    mine = [tensor.detach().requires_grad_() for tensor in mine]
    y = add_residual(*mine)
    expected = theirs[0] + theirs[1] + theirs[2][:, None, None]
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    assert y.is_contiguous(memory_format=torch.channels_last)

    dy = torch.randn(y.shape, generator=generator)
    y.backward(dy)
    expected.backward(dy)
    for a, b in zip(mine, theirs, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-5, atol=1e-5)
