"""What the libraries' kernels need for a network's arithmetic, shape by shape.

Every distinct convolution, linear layer and attention is timed alone, in each memory format, type
and kernel that may serve it, and the best is taken as often as the network does it. What a network
takes above this sum is norms, element-wise work and memory traffic between them.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.gpu.architecture import Architecture
from bench.gpu.attention import BACKENDS, only
from bench.gpu.ceilings import short
from bench.gpu.shapes import SUM, Attention, Conv, Linear, Shape, collect
from bench.gpu.timing import graphed_milliseconds
from dreambooth.sampling.devices import this_device

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
WORST = 14


def unet_shapes(architecture: Architecture, batch: int) -> Counter[Shape]:
    """What one UNet call on `batch` samples computes."""
    with torch.device("meta"):
        unet = architecture.unet()
        inputs = architecture.unet_inputs(batch, torch.float32)
    return collect(lambda: unet(*inputs, return_dict=False))


def decoder_shapes(architecture: Architecture, batch: int) -> Counter[Shape]:
    """What decoding `batch` pictures computes."""
    with torch.device("meta"):
        vae = architecture.vae()
        latents = architecture.latents(batch, torch.float32)
    return collect(lambda: vae.decode(latents))


def kernel_limit(
    title: str, shapes: Counter[Shape], dtypes: tuple[torch.dtype, ...], *, trained: bool
) -> dict[str, Any]:
    """Times every shape; prints and returns sums by kind and the rows."""
    torch.backends.cudnn.benchmark = True
    rows = [_row(shape, count, dtypes, trained) for shape, count in shapes.items()]
    rows.sort(key=lambda row: -row["total_ms"])
    sums: dict[str, Any] = {}
    for kind in SUM:
        of_kind = [row for row in rows if row["kind"] == kind]
        sums[kind] = {
            "ms": sum(row["total_ms"] for row in of_kind),
            "tflop": sum(row["flops"] for row in of_kind) / 1e12,
            "kernels": sum(row["count"] for row in of_kind),
            "by_way": _by_way(of_kind),
        }
    total = sum(each["ms"] for each in sums.values())
    print(f"{title}: best library kernels {total:.2f} ms", flush=True)
    for kind, each in sums.items():
        rate = each["tflop"] / each["ms"] * 1e3 if each["ms"] else 0.0
        ways = ", ".join(f"{way} {ms:.2f}" for way, ms in each["by_way"].items())
        print(
            f"  {SUM[kind]:13} {each['ms']:8.2f} ms {each['tflop']:7.2f} TFLOP {rate:6.0f} TFLOP/s"
            f" ({each['kernels']} kernels; {ways})",
            flush=True,
        )
    for row in rows[:WORST]:
        print(f"  {row['total_ms']:7.2f} ms {row['tflops']:5.0f} TFLOP/s {_words(row)}", flush=True)
    return {"title": title, "ms": total, "sums": sums, "rows": rows}


def _by_way(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The sum if one way served all shapes; only for ways that can."""
    if not rows:
        return {}
    common = set.intersection(*(set(row["ms"]) for row in rows))
    return {
        way: sum(row["ms"][way] * row["count"] for row in rows)
        for way in rows[0]["ms"]
        if way in common
    }


def _words(row: dict[str, Any]) -> str:
    ways = " ".join(f"{way} {ms:.3f}" for way, ms in row["ms"].items())
    failed = f" not: {', '.join(row['failed'])}" if row["failed"] else ""
    return f"{row['count']:3} × {row['kind']} {row['shape']} [{ways}{failed}]"


def _row(
    shape: Shape, count: int, dtypes: tuple[torch.dtype, ...], trained: bool
) -> dict[str, Any]:
    times: dict[str, float] = {}
    failed: dict[str, str] = {}
    for dtype in dtypes:
        for way, work in _ways(shape, dtype, trained).items():
            name = f"{short(dtype)} {way}".strip()
            try:
                times[name] = graphed_milliseconds(work(), rounds=3)
            except Exception as error:
                failed[name] = _first_line(error)
    best = min(times.values(), default=0.0)
    flops = shape.flops * count * (3.0 if trained else 1.0)
    return {
        "kind": shape.kind,
        "shape": _shape_words(shape),
        "count": count,
        "flops": flops,
        "ms": times,
        "failed": failed,
        "total_ms": best * count,
        "tflops": flops / (best * count) / 1e9 if best else 0.0,
    }


def _shape_words(shape: Shape) -> str:
    if isinstance(shape, Conv):
        kernel = f"{shape.weight[2]}x{shape.weight[2]}/{shape.stride}"
        return f"{list(shape.input)} -> {shape.weight[0]} {kernel}"
    if isinstance(shape, Linear):
        return f"{list(shape.input)} -> {shape.weight[0]}"
    return f"{list(shape.query)} x {shape.key[2]}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"


Maker = Callable[[], Callable[[], object]]


def _ways(shape: Shape, dtype: torch.dtype, trained: bool) -> dict[str, Maker]:
    """How a shape can be computed: functions that make the work to time."""
    if isinstance(shape, Conv):
        return {
            name: lambda memory=memory: _conv(shape, dtype, memory, trained)  # type: ignore[misc]
            for name, memory in FORMATS.items()
        }
    if isinstance(shape, Linear):
        return {"": lambda: _linear(shape, dtype, trained)}
    return {
        name: lambda name=name: _attention(shape, dtype, name, trained)  # type: ignore[misc]
        for name in BACKENDS
    }


def _conv(
    shape: Conv, dtype: torch.dtype, memory: torch.memory_format, trained: bool
) -> Callable[[], object]:
    device = this_device()
    inputs = torch.randn(shape.input, device=device, dtype=dtype).to(memory_format=memory)
    weight = torch.randn(shape.weight, device=device, dtype=dtype).to(memory_format=memory)
    bias = torch.randn(shape.weight[0], device=device, dtype=dtype)
    return _with_gradients(
        lambda: F.conv2d(inputs, weight, bias, shape.stride, shape.padding),
        (inputs, weight, bias),
        trained,
    )


def _linear(shape: Linear, dtype: torch.dtype, trained: bool) -> Callable[[], object]:
    device = this_device()
    inputs = torch.randn(shape.input, device=device, dtype=dtype)
    weight = torch.randn(shape.weight, device=device, dtype=dtype)
    bias = torch.randn(shape.weight[0], device=device, dtype=dtype) if shape.bias else None
    needed = (inputs, weight) if bias is None else (inputs, weight, bias)
    return _with_gradients(lambda: F.linear(inputs, weight, bias), needed, trained)


def _attention(
    shape: Attention, dtype: torch.dtype, backend: str, trained: bool
) -> Callable[[], object]:
    device = this_device()

    def heads(of: tuple[int, ...]) -> Tensor:
        # As the projections leave them: heads beside each other within a token.
        batch, count, length, width = of
        flat = torch.randn(batch, length, count, width, device=device, dtype=dtype)
        return flat.transpose(1, 2)

    query, key, value = heads(shape.query), heads(shape.key), heads(shape.key)
    work = _with_gradients(
        lambda: F.scaled_dot_product_attention(query, key, value), (query, key, value), trained
    )

    def by_backend() -> object:
        with only(backend):
            return work()

    return by_backend


def _with_gradients(
    forward: Callable[[], Tensor], needed: tuple[Tensor, ...], trained: bool
) -> Callable[[], object]:
    """`forward`, or with `trained` it and the gradients of all it needs."""
    if not trained:

        def inference() -> Tensor:
            with torch.no_grad():
                return forward()

        return inference
    for tensor in needed:
        tensor.requires_grad_()
    with torch.no_grad():
        given = torch.randn_like(forward())
    return lambda: torch.autograd.grad(forward(), needed, given)
