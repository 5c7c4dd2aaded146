"""Where the device's time goes, kernel by kernel."""

from collections.abc import Callable
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bench.gpu.timing import synchronize

TOP = 25
NAME_LENGTH = 100
# The first class of which a name holds a part is the kernel's.
CLASSES = {
    "attention": ("flash", "fmha", "attention", "sdpa", "mha_"),
    "layout": ("nchwtonhwc", "nhwctonchw", "transpose", "copy_device_to_device"),
    "convolution": ("conv", "fprop", "dgrad", "wgrad", "implicit", "winograd", "fft"),
    "linear": ("gemm", "nvjet", "cutlass", "cublas", "splitk"),
    "norm": ("norm", "rowwisemoments", "computefusedparams", "welford"),
    "optimizer": ("adam", "multi_tensor"),
    "copies": ("memcpy", "memset", "copy"),
}


def profiled(title: str, work: Callable[[], object], warm: int = 3) -> dict[str, Any]:
    """One call of `work` after `warm`: time by kernel; prints the top and the classes."""
    for _ in range(warm):
        work()
    synchronize()
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as recorded:
        work()
        synchronize()
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    rows = [
        {"name": event.key, "ms": _self_ms(event, on_gpu), "calls": event.count}
        for event in recorded.key_averages()
        if event.device_type == kind
    ]
    rows = sorted((row for row in rows if row["ms"] > 0), key=lambda row: -row["ms"])
    total = sum(row["ms"] for row in rows)
    classes: dict[str, float] = {}
    for row in rows:
        row["class"] = _class_of(row["name"])
        classes[row["class"]] = classes.get(row["class"], 0.0) + row["ms"]
    print(f"{title}: {total:.2f} ms on the device in {sum(r['calls'] for r in rows)} kernels")
    for name, spent in sorted(classes.items(), key=lambda each: -each[1]):
        print(f"  {name:12} {spent:8.2f} ms {spent / total:6.1%}")
    for row in rows[:TOP]:
        name = row["name"] = row["name"][:NAME_LENGTH]
        print(f"  {row['ms']:8.3f} ms {row['calls']:5} × {row['class'][:5]:5} {name}", flush=True)
    return {"title": title, "ms": total, "classes": classes, "kernels": rows[:TOP]}


def _self_ms(event: Any, on_gpu: bool) -> float:
    return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3


def _class_of(name: str) -> str:
    lower = name.lower()
    for kind, parts in CLASSES.items():
        if any(part in lower for part in parts):
            return kind
    return "element-wise"
