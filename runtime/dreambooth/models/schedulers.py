"""The samplers a manifest can name, on top of any model's own noise schedule."""

from typing import Any

import diffusers
import torch
from torch import Tensor

from dreambooth.models.samplers import check_flow_sampler

# Manifest name to diffusers class and overrides. All are deterministic given the initial noise.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "dpmsolver++": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    "euler": ("EulerDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
FLOW = "FlowMatchEulerDiscreteScheduler"


def make_scheduler(name: str | None, config: dict[str, Any]) -> Any:
    """A fresh diffusers scheduler, or what can be used like one.

    Args:
        name: One of `SCHEDULERS`, or None for the class the model's configuration names.
        config: The model's scheduler configuration.

    Raises:
        UserError: If the model is none for this sampler.
    """
    if config["_class_name"] == FLOW:
        check_flow_sampler(name, field="scheduler")
        return FlowSampler(config)
    if name is None:
        return getattr(diffusers, config["_class_name"]).from_config(config)
    cls, overrides = SCHEDULERS[name]
    return getattr(diffusers, cls).from_config(config, **overrides)


class FlowSampler:
    """diffusers' sampler of flow-matching models, with the interface of its others."""

    # Such a model begins with noise as it is drawn.
    init_noise_sigma = 1.0

    def __init__(self, config: dict[str, Any]) -> None:
        self._scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(config)

    @property
    def config(self) -> Any:
        """The scheduler's configuration."""
        return self._scheduler.config

    @property
    def timesteps(self) -> Tensor:
        """`[steps]` float32, falling."""
        timesteps: Tensor = self._scheduler.timesteps
        return timesteps

    def set_timesteps(self, steps: int, device: torch.device | None = None) -> None:
        """Begins a picture of `steps` steps."""
        self._scheduler.set_timesteps(steps, device=device)
        # Left to itself it looks for the first timestep's place, and waits for the device.
        self._scheduler.set_begin_index(0)

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """`sample` as it is."""
        return sample

    def step(self, output: Tensor, timestep: Tensor, sample: Tensor, **options: Any) -> Any:
        """One step along the denoiser's `output`."""
        return self._scheduler.step(output, timestep, sample, **options)
