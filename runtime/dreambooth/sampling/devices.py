"""Which device a process computes on, and how it is set up so that results repeat."""

import contextlib
import ctypes
import functools
import os
from pathlib import Path

import torch

from dreambooth.processors import usable_cpus
from dreambooth.workspace.layout import Workspace

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Tensors up to this size, and as much free memory, are kept.
_KEPT_BYTES = 2**30


def this_device() -> torch.device:
    """The GPU that Ray gave this process, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_process() -> torch.device:
    """Sets threads and determinism for a process that computes alone on its machine's CPUs.

    Ray sets OMP_NUM_THREADS to the logical CPUs of the actor; a model actor is the only busy
    process, so it takes all cores.
    """
    device = this_device()
    keep_memory()
    keep_compiled()
    torch.set_num_threads(physical_threads())
    if device.type == "cpu":
        compute_repeatably()
    return device


def keep_memory() -> None:
    """Lets the C library keep what tensors give back, instead of asking the kernel for it anew.

    A training step makes and frees thousands of tensors, and the kernel clears every page it hands
    out. `give_memory_back` returns what is free after all. Nothing happens without glibc.
    """
    library = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):
        library.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_memory_back() -> None:
    """Returns memory that is free but kept: to the kernel, and to others on the GPU."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    library = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):
        library.malloc_trim(0)


def keep_compiled() -> None:
    """Lets Triton keep the kernels it compiles on the shared workspace, for the pods of later jobs.

    Only pods have the workspace's place in their environment; elsewhere a folder at home, which is
    Triton's own choice, lasts as well.
    """
    if workspace := os.environ.get("DREAMBOOTH_WORKSPACE"):
        folder = Workspace(Path(workspace)).compile / "triton"
        os.environ.setdefault("TRITON_CACHE_DIR", str(folder))


def compute_repeatably() -> None:
    """Lets torch choose only kernels that give the same result every time.

    It would also fill all memory it takes, so that reading what was never written repeats, too.
    Nothing here does that, and filling takes time: a training step makes thousands of tensors.
    """
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def physical_threads() -> int:
    """CPU threads for one model process: `DREAMBOOTH_CPU_THREADS`, or what the process may use."""
    chosen = os.environ.get("DREAMBOOTH_CPU_THREADS")
    return int(chosen) if chosen else usable_cpus()


def training_dtype(device: torch.device) -> torch.dtype:
    """Autocast type of training: bfloat16 where the processor multiplies it itself."""
    return torch.bfloat16 if device.type == "cuda" or _cpu_has_bfloat16() else torch.float32


def sampling_dtype(device: torch.device) -> torch.dtype:
    """Weights' type for sampling: bfloat16 where the processor multiplies it itself.

    GPUs multiply it faster than float16: fewer bits of the products change, which takes less power.
    """
    if device.type == "cuda":
        return torch.bfloat16
    return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32


@functools.cache
def _cpu_has_bfloat16() -> bool:
    """Without such instructions bfloat16 is emulated, and slower than float32."""
    flags = _cpu_flags()
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def _cpu_flags() -> frozenset[str]:
    """What the kernel says the processor can do; nothing where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(flags, "").split())
