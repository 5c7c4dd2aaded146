"""Whole networks with the kernels in them against the same networks without."""

from typing import Any

import peft
import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

from dreambooth.kernels.fusing import fuse
from dreambooth.kernels.modules import FusedResnetBlock2D
from tests.unit.kernels.networks import a_unet, a_vae, decode_and_encode, gradients, predict

# fp32, through some thirty layers.
RTOL, ATOL = 1e-4, 1e-5


def assert_all_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(
            found[name], value, rtol=RTOL, atol=ATOL * max(scale, 1e-2), msg=name
        )


@pytest.mark.parametrize("changes", [{}, {"use_linear_projection": True}], ids=["conv", "linear"])
def test_a_fused_unet_predicts_and_learns_the_same(changes: dict[str, object]) -> None:
    plain: Any = a_unet(**changes)
    fused: Any = fuse(a_unet(**changes))
    blocks = [module for module in fused.modules() if type(module) is FusedResnetBlock2D]
    assert len(blocks) == 8
    with torch.no_grad():
        torch.testing.assert_close(predict(fused), predict(plain), rtol=RTOL, atol=ATOL)
    assert_all_close(gradients(fused), gradients(plain))
    # A fused optimizer walks weights and gradients as plain memory.
    for name, parameter in fused.named_parameters():
        assert parameter.grad is not None, name
        sizes = zip(parameter.shape, parameter.stride(), parameter.grad.stride(), strict=True)
        assert all(a == b for size, a, b in sizes if size > 1), name


def test_gradient_checkpointing_changes_nothing() -> None:
    recomputed: Any = fuse(a_unet()).train()
    recomputed.enable_gradient_checkpointing()
    assert_all_close(gradients(recomputed), gradients(a_unet()))


def test_adapters_are_used_and_trained() -> None:
    config = peft.LoraConfig(
        r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0", "proj", "conv1", "conv_shortcut"],
        init_lora_weights=False,
    )  # fmt: skip
    networks = []
    for prepare in (lambda unet: unet, fuse):
        unet: Any = a_unet()
        unet.requires_grad_(False)
        unet = prepare(unet)
        torch.manual_seed(4)
        unet.add_adapter(config)
        networks.append(unet)
    plain, fused = networks
    found = gradients(fused)
    assert all("lora" in name for name in found)
    assert_all_close(found, gradients(plain))


def test_a_fused_vae_decodes_and_encodes_the_same() -> None:
    plain = decode_and_encode(a_vae())
    vae = fuse(a_vae())
    assert not [module for module in vae.modules() if type(module) is ResnetBlock2D]
    for a, b in zip(decode_and_encode(vae), plain, strict=True):
        torch.testing.assert_close(a, b, rtol=RTOL, atol=ATOL)
