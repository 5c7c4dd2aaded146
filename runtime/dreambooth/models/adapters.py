"""LoRA adapters (Hu et al., arXiv 2106.09685) through peft, in the form that diffusers reads."""

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

# The projections that diffusers' own DreamBooth LoRA trainers adapt.
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


def add_adapters(
    networks: Sequence[tuple[nn.Module, Sequence[str]]], rank: int, alpha: float, seed: int
) -> None:
    """Adds adapters to each network's projections, by name or end of name.

    What they begin with follows from `seed`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for network, targets in networks:
            config = LoraConfig(
                r=rank,
                lora_alpha=alpha,
                init_lora_weights="gaussian",
                target_modules=list(targets),
            )
            network.add_adapter(config)  # type: ignore[operator]


def lora_file_arguments(networks: dict[str, nn.Module]) -> dict[str, Any]:
    """What a diffusers pipeline's `save_lora_weights` takes for `networks`, by their part's name.

    Networks without adapters are left out of the file.
    """
    arguments: dict[str, Any] = {}
    for name, network in networks.items():
        arguments[f"{name}_lora_layers"] = _state(network) or None
        arguments[f"{name}_lora_adapter_metadata"] = _metadata(network)
    return arguments


def _state(network: nn.Module) -> dict[str, Tensor]:
    if not getattr(network, "peft_config", None):
        return {}
    return {name: value.contiguous() for name, value in get_peft_model_state_dict(network).items()}


def _metadata(network: nn.Module) -> dict[str, Any] | None:
    configs = getattr(network, "peft_config", None)
    if not configs:
        return None
    metadata: dict[str, Any] = next(iter(configs.values())).to_dict()
    for key, value in metadata.items():
        if isinstance(value, set):
            metadata[key] = sorted(value)
    return metadata
