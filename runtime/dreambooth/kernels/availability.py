"""Where the kernels can run."""

import importlib.util
import os
import shutil
import sysconfig
from functools import cache
from pathlib import Path

import torch

from dreambooth.kernels.rehearsal import is_rehearsing

# The oldest generation with bf16 arithmetic (Ampere).
MINIMUM_CAPABILITY = (8, 0)


def check_available(device: torch.device | str) -> str | None:
    """Says why the kernels can't run on a device.

    Args:
        device: Where the tensors are.

    Returns:
        The reason, or None if they can. On CPU they can in Triton's interpreter only
        (`TRITON_INTERPRET=1` before Triton is imported), which is how their arithmetic is tested.
    """
    device = torch.device(device)
    if device.type == "meta" and is_rehearsing():
        # They stand for tensors on this process's GPU.
        device = torch.device("cuda")
    return _reason(device, os.environ.get("TRITON_INTERPRET") == "1")


def is_autocast(device: torch.device) -> bool:
    """Whether operations on a device are cast to lower precision."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


@cache
def _reason(device: torch.device, interpreted: bool) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cpu":
        return None if interpreted else "the tensors are on the CPU"
    if device.type != "cuda":
        return f"there are no kernels for {device.type} devices"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if torch.version.hip is not None:
        return "the kernels were written for NVIDIA GPUs"
    if not _can_compile():
        return "Triton needs a C compiler and Python's headers (gcc or clang, Python.h)"
    capability = torch.cuda.get_device_capability(device)
    if capability < MINIMUM_CAPABILITY:
        return f"the GPU's compute capability is {capability[0]}.{capability[1]}, below 8.0"
    return None


def _can_compile() -> bool:
    """Whether Triton can compile what launches a kernel."""
    names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    return any(map(shutil.which, names)) and _headers().is_file()


def _headers() -> Path:
    # Debian's own scheme names a folder that doesn't have them; Triton does the same.
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    return Path(sysconfig.get_path("include", scheme)) / "Python.h"
