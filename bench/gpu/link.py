"""How fast two workers of a machine add up gradients, with nothing else going on."""

import os
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bench.gpu.architecture import SD14, TINY, parameters
from bench.gpu.timing import milliseconds
from dreambooth.training.reduction import BUCKET_BYTES

PORT = "29517"


def all_reduce(tiny: bool) -> dict[str, Any]:
    """Milliseconds to add up bfloat16 gradients of UNet and text encoder, in the product's buckets.

    `bus` is the rate of a ring that takes as long.
    """
    architecture = TINY if tiny else SD14
    with torch.device("meta"):
        count = parameters(architecture.unet()) + parameters(architecture.text_encoder())
    workers = 2
    context = mp.get_context("spawn")
    answers: Any = context.SimpleQueue()
    processes = [
        context.Process(target=_worker, args=(rank, workers, count, answers))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"workers ended with {[process.exitcode for process in processes]}")
    ms = answers.get()
    sent = 2 * (workers - 1) / workers * 2 * count
    found = {
        "architecture": architecture.name,
        "workers": workers,
        "bytes": 2 * count,
        "ms": ms,
        "bus": sent / ms * 1e3,
    }
    print(f"all-reduce: {found}", flush=True)
    return found


def _worker(rank: int, workers: int, count: int, answers: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT}
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(rank)
    dist.init_process_group("nccl" if on_gpu else "gloo", rank=rank, world_size=workers)
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    size = BUCKET_BYTES // 2
    buckets = [
        torch.zeros(min(size, count - start), dtype=torch.bfloat16, device=device)
        for start in range(0, count, size)
    ]

    def reduce() -> None:
        for work in [dist.all_reduce(bucket, async_op=True) for bucket in buckets]:
            assert work is not None
            work.wait()

    spent = median(milliseconds(reduce, rounds=5, warm=3, repeats=3) for _ in range(3))
    if rank == 0:
        answers.put(spent)
    dist.destroy_process_group()
