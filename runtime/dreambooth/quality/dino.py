"""DINO ViT-S/16 as published in timm's names, for `transformers.ViTModel`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

DINO_VITS16_CONFIG: dict[str, Any] = {
    "model_type": "vit",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "image_size": 224,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
}

_OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_IN_A_LAYER = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def from_timm(weights: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Renames, and splits the joint projection of query, key and value."""
    renamed = {}
    for name, value in weights.items():
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            for new, part in _layer(rest, value):
                renamed[f"encoder.layer.{number}.{new}"] = part
            continue
        whole, kind = _split(name)
        if whole in _OUTSIDE:
            renamed[f"{_OUTSIDE[whole]}{kind}"] = value
    return renamed


def _layer(name: str, value: "Tensor") -> "list[tuple[str, Tensor]]":
    whole, kind = _split(name)
    if whole == "attn.qkv":
        names = ("query", "key", "value")
        return [
            (f"attention.attention.{new}{kind}", part.contiguous())
            for new, part in zip(names, value.chunk(3), strict=True)
        ]
    return [(f"{_IN_A_LAYER[whole]}{kind}", value)]


def _split(name: str) -> tuple[str, str]:
    """The module's name and `.weight`, `.bias` or nothing."""
    for kind in (".weight", ".bias"):
        if name.endswith(kind):
            return name.removesuffix(kind), kind
    return name, ""
