"""What fusing leaves as it is."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from dreambooth.kernels.fusing import fuse, unfuse
from dreambooth.kernels.projections import join_weights, part_weights, project
from tests.unit.kernels.networks import a_unet, a_vae, decode_and_encode, gradients, predict


def classes_of(model: nn.Module) -> list[type]:
    processors = [type(m.processor) for m in model.modules() if hasattr(m, "processor")]
    return [type(module) for module in model.modules()] + processors


def test_on_the_cpu_a_fused_unet_computes_the_same_bits() -> None:
    plain, fused = a_unet(), fuse(a_unet())
    assert torch.equal(predict(fused), predict(plain))
    expected = gradients(plain)
    for name, gradient in gradients(fused).items():
        assert torch.equal(gradient, expected[name]), name


def test_on_the_cpu_a_fused_vae_computes_the_same_bits() -> None:
    for a, b in zip(decode_and_encode(fuse(a_vae())), decode_and_encode(a_vae()), strict=True):
        assert torch.equal(a, b)


def test_state_dict_and_saved_folder_are_those_of_the_plain_model(tmp_path: Path) -> None:
    plain, fused = a_unet(), fuse(a_unet())
    assert list(fused.state_dict()) == list(plain.state_dict())
    for name, folder in (("plain", tmp_path / "plain"), ("fused", tmp_path / "fused")):
        {"plain": plain, "fused": fused}[name].save_pretrained(folder)
    for file in (tmp_path / "plain").iterdir():
        assert (tmp_path / "fused" / file.name).read_bytes() == file.read_bytes()
    loaded = UNet2DConditionModel.from_pretrained(tmp_path / "fused")
    loaded = loaded.to(memory_format=torch.channels_last)
    assert torch.equal(predict(loaded), predict(plain))


@pytest.mark.parametrize("make", [a_unet, a_vae])
def test_unfusing_restores_every_class(make: type[nn.Module]) -> None:
    model = make()
    before = classes_of(model)
    assert classes_of(fuse(model)) != before
    assert classes_of(unfuse(model)) == before


def test_fusing_twice_is_fusing_once() -> None:
    model = fuse(a_unet())
    before = classes_of(model)
    assert classes_of(fuse(model)) == before
    unfuse(model)
    assert torch.equal(predict(model), predict(a_unet()))


def layers(count: int, *, bias: bool = False) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(6, 8, bias=bias) for _ in range(count)]


def test_joined_projections_are_one_multiplication_with_the_same_results() -> None:
    plain, joined = layers(3), layers(3)
    join_weights(joined)
    ours = torch.randn(2, 5, 6, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    found = project(ours, joined)
    assert len({part.untyped_storage().data_ptr() for part in found}) == 1
    expected = [layer(theirs) for layer in plain]
    torch.autograd.backward(found, [torch.ones_like(part) * i for i, part in enumerate(found)])
    torch.autograd.backward(expected, [torch.ones_like(p) * i for i, p in enumerate(expected)])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(ours.grad, theirs.grad)
    for one, other in zip(joined, plain, strict=True):
        torch.testing.assert_close(one.weight.grad, other.weight.grad)
        assert torch.equal(one.weight, other.weight)


def test_a_changed_weight_counts_in_the_next_projection() -> None:
    joined = layers(2)
    join_weights(joined)
    with torch.no_grad():
        joined[1].weight.fill_(1.0)
        x = torch.ones(1, 6)
        torch.testing.assert_close(project(x, joined)[1], torch.full((1, 8), 6.0))


def test_weights_that_were_moved_apart_are_used_one_by_one() -> None:
    joined = layers(2)
    join_weights(joined)
    part_weights(joined)
    x = torch.ones(1, 6)
    for found, layer in zip(project(x, joined), joined, strict=True):
        assert torch.equal(found, layer(x))


def test_layers_with_biases_are_called() -> None:
    biased = layers(2, bias=True)
    join_weights(biased)
    x = torch.ones(1, 6)
    for found, layer in zip(project(x, biased), biased, strict=True):
        assert torch.equal(found, layer(x))
