"""The group norm kernels against torch, forward and backward."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dreambooth.kernels.device import small_group_norm
from dreambooth.kernels.group_norm import group_norm, group_norm_silu

Norm = Callable[[Tensor, int, Tensor, Tensor, float], Tensor]
# [N, C, ...] and groups: whole tiles, channels and pixels that fill none, one pixel, a sequence.
SHAPES = [
    ((2, 64, 8, 8), 4),
    ((1, 80, 9, 8), 8),
    ((2, 30, 5, 7), 3),
    ((3, 6, 1, 1), 2),
    ((2, 40, 21), 4),
]
# fp32 against fp64: torch's own fp32 result is further from it than ours.
RTOL, ATOL = 1e-4, 1e-5


@pytest.fixture(params=["in one program", "in tiles"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All images in one program a group, or all as large ones are."""
    if request.param == "in tiles":
        monkeypatch.setattr(small_group_norm, "LARGEST", 0)


def reference(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.silu(F.group_norm(x, groups, weight, bias, eps))


def inputs(shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    # A mean far from zero, as in trained networks: it must not eat the variance's digits.
    x = torch.randn(shape, generator=generator) * 0.5 + 8.0
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(shape[1], generator=generator)
    bias = torch.randn(shape[1], generator=generator)
    return [tensor.requires_grad_() for tensor in (x, weight, bias)]


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize(("shape", "groups"), SHAPES)
@pytest.mark.parametrize(
    ("ours", "torchs"), [(group_norm, F.group_norm), (group_norm_silu, reference)]
)
def test_values_and_gradients_are_torchs(
    shape: tuple[int, ...], groups: int, ours: Norm, torchs: Norm
) -> None:
    mine = inputs(shape)
    theirs = [tensor.detach().double().requires_grad_() for tensor in mine]
    y = ours(mine[0], groups, mine[1], mine[2], 1e-5)
    expected = torchs(theirs[0], groups, theirs[1], theirs[2], 1e-5)
    torch.testing.assert_close(y.double(), expected, rtol=RTOL, atol=ATOL)
    assert y.stride(1) == 1 or y.shape[1] == y.numel()

    dy = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    y.backward(dy)
    expected.backward(dy)
    for a, b in zip(mine, theirs, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=RTOL, atol=5e-5)


@pytest.mark.usefixtures("cut")
def test_a_shift_is_added_first_and_gets_its_gradient() -> None:
    x, weight, bias = inputs((2, 24, 9, 8))
    shift = torch.randn(2, 24, generator=torch.Generator().manual_seed(3)).requires_grad_()
    mine = [x, weight, bias, shift]
    theirs = [tensor.detach().double().requires_grad_() for tensor in mine]
    y = group_norm_silu(x, 3, weight, bias, 1e-5, shift=shift)
    moved = theirs[0] + theirs[3][:, :, None, None]
    expected = reference(moved, 3, theirs[1], theirs[2], 1e-5)
    torch.testing.assert_close(y.double(), expected, rtol=RTOL, atol=ATOL)

    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    y.backward(dy)
    expected.backward(dy)
    for a, b in zip(mine, theirs, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=RTOL, atol=5e-5)


@pytest.mark.usefixtures("cut")
def test_bf16_images_are_normalized_in_fp32() -> None:
    x, weight, bias = (tensor.detach().bfloat16() for tensor in inputs((2, 64, 8, 8)))
    y = group_norm_silu(x, 4, weight, bias, 1e-5)
    expected = reference(x.float(), 4, weight.float(), bias.float(), 1e-5)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=2**-7, atol=2**-9)


def test_an_image_in_the_contiguous_format_gives_the_same() -> None:
    x, weight, bias = (tensor.detach() for tensor in inputs((2, 30, 5, 7)))
    assert torch.equal(
        group_norm(x.contiguous(), 3, weight, bias, 1e-5), group_norm(x, 3, weight, bias, 1e-5)
    )


def test_frozen_weights_get_no_gradient() -> None:
    x, weight, bias = inputs((1, 6, 2, 2))
    weight.requires_grad_(False)
    bias.requires_grad_(False)
    group_norm_silu(x, 2, weight, bias, 1e-5).sum().backward()
    assert x.grad is not None
    assert weight.grad is None
