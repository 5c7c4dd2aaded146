"""Which device a process computes on, and how it is set up so that results repeat."""

import os

import torch


def this_device() -> torch.device:
    """The GPU that Ray gave this process, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_process() -> torch.device:
    """Sets threads and determinism for a process that computes alone on its machine's CPUs.

    Ray sets OMP_NUM_THREADS to the logical CPUs of the actor; a model actor is the only busy
    process, so it takes all cores.
    """
    device = this_device()
    torch.set_num_threads(physical_threads())
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
    return device


def physical_threads() -> int:
    """CPU threads for one model process: `DREAMBOOTH_CPU_THREADS`, or what the process may use."""
    chosen = os.environ.get("DREAMBOOTH_CPU_THREADS")
    return int(chosen) if chosen else len(os.sched_getaffinity(0))
