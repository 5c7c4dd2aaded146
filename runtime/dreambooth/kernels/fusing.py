"""Puts the kernels into a diffusers UNet or VAE, and takes them out again.

Only classes and attention processors are swapped: parameters, their names, the configuration and
what `save_pretrained` writes stay as they are, so do gradient checkpointing and adapters. On the
CPU a fused model computes bit for bit what it computed before.
"""

from typing import Any

from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn

from dreambooth.kernels.layer_norm import is_plain
from dreambooth.kernels.modules import (
    FusedAttnProcessor,
    FusedBasicTransformerBlock,
    FusedGEGLU,
    FusedGroupNorm,
    FusedGroupNormSiLU,
    FusedLayerNorm,
    FusedLinear,
    FusedResnetBlock2D,
    FusedTransformer2DModel,
    FusedUpsample2D,
    is_fusable_block,
    is_fusable_transformer,
)
from dreambooth.kernels.projections import join_weights, part_weights

FUSED: dict[type[nn.Module], type[nn.Module]] = {
    BasicTransformerBlock: FusedBasicTransformerBlock,
    GEGLU: FusedGEGLU,
    nn.GroupNorm: FusedGroupNorm,
    nn.LayerNorm: FusedLayerNorm,
    nn.Linear: FusedLinear,
    ResnetBlock2D: FusedResnetBlock2D,
    Transformer2DModel: FusedTransformer2DModel,
    Upsample2D: FusedUpsample2D,
}
ORIGINAL = {fused: original for original, fused in FUSED.items()}
ORIGINAL[FusedGroupNormSiLU] = nn.GroupNorm


def fuse(model: nn.Module) -> nn.Module:
    """Makes a diffusers model use the kernels where they can run.

    Call it when the weights have their type and place: moving them later is allowed, but parts
    the joined projections, which then are computed one by one.

    Args:
        model: A `UNet2DConditionModel`, an `AutoencoderKL`, or any part of one; of other networks
            (a text encoder) the linear layers and layer norms.

    Returns:
        The same model.
    """
    # Before the norms in the blocks are fused, which a block's test looks at.
    modules: list[Any] = list(model.modules())
    for module in modules:
        if type(module) is ResnetBlock2D and is_fusable_block(module):
            module.__class__ = FusedResnetBlock2D
        elif type(getattr(module, "conv_act", None)) is nn.SiLU and _normalizes(module):
            module.conv_norm_out.__class__ = FusedGroupNormSiLU
            module.conv_act = nn.Identity()
    for module in modules:
        if type(module) is Attention and type(module.processor) is AttnProcessor2_0:
            module.set_processor(FusedAttnProcessor())
            join_weights(_projected_together(module))
        elif _is_fusable(module):
            module.__class__ = FUSED[type(module)]
    return model


def unfuse(model: nn.Module) -> nn.Module:
    """Reverses `fuse`; returns the same model."""
    modules: list[Any] = list(model.modules())
    for module in modules:
        norm = getattr(module, "conv_norm_out", None)
        if type(norm) is FusedGroupNormSiLU:
            module.conv_act = nn.SiLU()
        if type(module) is Attention and type(module.processor) is FusedAttnProcessor:
            module.set_processor(AttnProcessor2_0())
            part_weights(_projected_together(module))
    for module in modules:
        if type(module) in ORIGINAL:
            module.__class__ = ORIGINAL[type(module)]
    return model


def _is_fusable(module: Any) -> bool:
    if type(module) is nn.GroupNorm:
        return bool(module.affine)
    if type(module) is Transformer2DModel:
        return bool(module.is_input_continuous)
    if type(module) is nn.LayerNorm:
        return is_plain(module)
    if type(module) is nn.Linear:
        return module.bias is not None
    if type(module) is BasicTransformerBlock:
        return is_fusable_transformer(module)
    return type(module) in (GEGLU, Upsample2D)


def _normalizes(module: nn.Module) -> bool:
    norm = getattr(module, "conv_norm_out", None)
    return type(norm) is nn.GroupNorm and norm.affine


def _projected_together(attention: Attention) -> list[nn.Module]:
    """The projections of one input: all three in self-attention, else keys and values."""
    layers = [attention.to_k, attention.to_v]
    return layers if attention.is_cross_attention else [attention.to_q, *layers]
