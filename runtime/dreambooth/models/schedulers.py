"""The samplers a manifest can name, on top of any model's own noise schedule."""

from typing import Any

import diffusers

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


def make_scheduler(name: str | None, config: dict[str, Any]) -> Any:
    """A fresh diffusers scheduler.

    Args:
        name: One of `SCHEDULERS`, or None for the class the model's configuration names.
        config: The model's scheduler configuration.
    """
    if name is None:
        return getattr(diffusers, config["_class_name"]).from_config(config)
    cls, overrides = SCHEDULERS[name]
    return getattr(diffusers, cls).from_config(config, **overrides)
