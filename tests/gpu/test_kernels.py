"""The kernels at the sizes of Stable Diffusion's networks, against torch on the same GPU.

Prints times and the memory bandwidth they amount to; nothing is asserted about these. It also
runs where pytest isn't installed: `PYTHONPATH=runtime python tests/gpu/test_kernels.py [WORD]`
runs the tests with WORD in their names.
"""

import faulthandler
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreambooth.kernels.adamw import FusedAdamW, TorchAdamW
from dreambooth.kernels.fusing import fuse, unfuse
from dreambooth.kernels.geglu import geglu
from dreambooth.kernels.group_norm import group_norm, group_norm_silu
from dreambooth.kernels.layer_norm import add_layer_norm
from dreambooth.kernels.linear import linear
from dreambooth.kernels.residual import add_residual
from dreambooth.kernels.upsampling import double

DEVICE, BF16 = "cuda", torch.bfloat16
# [N, C, H, W] of the UNet in training (4) and sampling (32), and of the VAE's decoder.
IMAGES = [
    (4, 320, 64, 64),
    (4, 960, 64, 64),
    (4, 640, 32, 32),
    (4, 1280, 16, 16),
    (4, 1280, 8, 8),
    (32, 320, 64, 64),
    (32, 1920, 32, 32),
    (32, 2560, 8, 8),
    (4, 512, 64, 64),
    (4, 256, 512, 512),
    (4, 128, 512, 512),
]


def milliseconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Of one call inside a CUDA graph, so that launches from Python don't count."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # On the same stream: autograd joins a parameter's first one with every later one.
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(repeats):
            work()
    graph.replay()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    graph.replay()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / repeats


def report(what: str, ours: float, theirs: float, moved: float) -> None:
    rate = moved / ours / 1e6
    print(f"{what}: {ours:.4f} ms ({rate:.0f} GB/s), torch {theirs:.4f} ms", flush=True)


def relative_error(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().float(), b.detach().float()
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


def image(shape: tuple[int, ...]) -> Tensor:
    x = torch.randn(shape, device=DEVICE, dtype=BF16) + 1.0
    return x.contiguous(memory_format=torch.channels_last)


def silu_of_torchs(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.silu(F.group_norm(x, groups, weight, bias, eps))


def gated_by_torch(x: Tensor) -> Tensor:
    hidden, gate = x.chunk(2, dim=-1)
    return hidden * F.gelu(gate)


def test_group_norm_is_torchs_at_full_size() -> None:
    torch.manual_seed(0)
    for shape in IMAGES:
        assert_values_agree(shape)


@torch.no_grad()
def assert_values_agree(shape: tuple[int, ...]) -> None:
    x = image(shape)
    weight, bias = torch.randn(2, shape[1], device=DEVICE, dtype=BF16)
    for ours, torchs in ((group_norm, F.group_norm), (group_norm_silu, silu_of_torchs)):
        y = ours(x, 32, weight, bias, 1e-5)
        expected = torchs(x.float(), 32, weight.float(), bias.float(), 1e-5)
        assert relative_error(y, expected) < 4e-3, shape
        assert y.is_contiguous(memory_format=torch.channels_last)
        del expected
    contiguous = x.contiguous()
    last = milliseconds(lambda: silu_of_torchs(x, 32, weight, bias, 1e-5))
    report(
        f"group norm + SiLU {shape} (torch channels_last {last:.4f} ms)",
        milliseconds(lambda: group_norm_silu(x, 32, weight, bias, 1e-5)),
        milliseconds(lambda: silu_of_torchs(contiguous, 32, weight, bias, 1e-5)),
        6 * x.numel(),
    )


def test_group_norms_gradients_are_torchs_at_full_size() -> None:
    torch.manual_seed(1)
    for shape in IMAGES[:6]:
        assert_gradients_agree(shape)


def assert_gradients_agree(shape: tuple[int, ...]) -> None:
    x, dy = image(shape), image(shape) - 1.0
    weight, bias = torch.randn(2, shape[1], device=DEVICE, dtype=BF16)
    inputs = [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
    exact = [tensor.detach().float().requires_grad_() for tensor in (x, weight, bias)]

    def gradients(norm: Callable[..., Tensor], of: list[Tensor], dy: Tensor) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = torch.autograd.grad(norm(of[0], 32, *of[1:], 1e-5), of, dy)
        return result

    found = gradients(group_norm_silu, inputs, dy)
    for a, b in zip(found, gradients(silu_of_torchs, exact, dy.float()), strict=True):
        assert a.stride() == (x.stride() if a.dim() == 4 else (1,))
        assert relative_error(a, b) < 6e-3, shape
    again = gradients(group_norm_silu, inputs, dy)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    report(
        f"group norm + SiLU, forward and backward {shape}",
        milliseconds(lambda: gradients(group_norm_silu, inputs, dy)),
        milliseconds(lambda: gradients(silu_of_torchs, inputs, dy)),
        16 * x.numel(),
    )


def test_geglu_is_torchs_at_full_size() -> None:
    torch.manual_seed(2)
    for shape in [(4, 4096, 2560), (4, 1024, 5120), (4, 256, 10240), (32, 4096, 2560)]:
        assert_geglu_agree(shape)


def assert_geglu_agree(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, device=DEVICE, dtype=BF16).requires_grad_()
    dy = torch.randn((*shape[:2], shape[2] // 2), device=DEVICE, dtype=BF16)
    exact = x.detach().float().requires_grad_()
    assert relative_error(geglu(x), gated_by_torch(exact)) < 4e-3
    (found,) = torch.autograd.grad(geglu(x), x, dy)
    (expected,) = torch.autograd.grad(gated_by_torch(exact), exact, dy.float())
    assert relative_error(found, expected) < 4e-3
    report(
        f"GEGLU, forward and backward {shape}",
        milliseconds(lambda: torch.autograd.grad(geglu(x), x, dy)),
        milliseconds(lambda: torch.autograd.grad(gated_by_torch(x), x, dy)),
        8 * x.numel(),
    )


def test_layer_norm_is_torchs_at_full_size() -> None:
    torch.manual_seed(7)
    for shape in [(4, 4096, 320), (4, 1024, 640), (4, 256, 1280), (32, 4096, 320)]:
        assert_layer_norm_agree(shape)


def assert_layer_norm_agree(shape: tuple[int, int, int]) -> None:
    norm = nn.LayerNorm(shape[-1], device=DEVICE, dtype=BF16)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    wide = nn.LayerNorm(shape[-1], device=DEVICE)
    wide.load_state_dict(norm.state_dict())
    inputs = [torch.randn(shape, device=DEVICE, dtype=BF16).requires_grad_() for _ in range(2)]
    # The sum as it is stored is what is normalized.
    exact = (inputs[0] + inputs[1]).detach().float().requires_grad_()
    slopes = [torch.randn(shape, device=DEVICE, dtype=BF16) for _ in range(2)]
    leaves = [*inputs, norm.weight, norm.bias]

    def ours() -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = torch.autograd.grad(
            add_layer_norm(inputs[0], inputs[1], norm), leaves, slopes
        )
        return result

    # From one root: autograd joins several with the default stream, which a capture forbids.
    def timed(both: Callable[[], tuple[Tensor, Tensor]]) -> float:
        return milliseconds(lambda: torch.autograd.grad(torch.add(*both()), leaves, slopes[0]))

    def torchs() -> tuple[Tensor, Tensor]:
        added = inputs[0] + inputs[1]
        return added, norm(added)

    # Detached: what they came from would keep the parameters on this stream while others capture.
    added, normed = (each.detach() for each in add_layer_norm(inputs[0], inputs[1], norm))
    assert torch.equal(added, exact.to(BF16))
    assert relative_error(normed, wide(exact)) < 4e-3
    found = ours()
    wanted = torch.autograd.grad(
        [exact * 1.0, wide(exact)], [exact, wide.weight, wide.bias], [s.float() for s in slopes]
    )
    for a, b in zip((found[0], found[2], found[3]), wanted, strict=True):
        assert relative_error(a, b) < 6e-3, shape
    assert all(torch.equal(a, b) for a, b in zip(found, ours(), strict=True))
    with torch.no_grad():
        forward = milliseconds(lambda: add_layer_norm(inputs[0], inputs[1], norm))
        plain = milliseconds(lambda: norm(inputs[0] + inputs[1]))
    report(f"sum + layer norm {shape}", forward, plain, 8 * inputs[0].numel())
    both = timed(lambda: add_layer_norm(inputs[0], inputs[1], norm)), timed(torchs)
    what = f"sum + layer norm, sum of both, forward and backward {shape}"
    report(what, *both, 22 * inputs[0].numel())


def unet_like() -> Iterator[Tensor]:
    """About 254 M parameters in the shapes of a UNet's: matrices, convolutions, vectors."""
    for _ in range(12):
        yield torch.randn(1280, 1280, 3, 3).contiguous(memory_format=torch.channels_last)
        yield torch.randn(5120, 1280)
        yield torch.randn(1280)
        yield torch.randn(4)
        yield torch.randn(4097)


def test_adamw_is_torchs_inside_a_cuda_graph() -> None:
    torch.manual_seed(3)
    with torch.device(DEVICE):
        values = [value * 0.02 for value in unet_like()]
    working = [nn.Parameter(value.to(BF16)) for value in values]
    ours = FusedAdamW(working, lr=1e-3, weight_decay=0.05, max_norm=1.0, masters=values)
    expected = [nn.Parameter(value.clone()) for value in values]
    reference = torch.optim.AdamW(expected, lr=1e-3, weight_decay=0.05, foreach=True)
    targets = [torch.randn_like(value).to(BF16) for value in values]

    def step() -> None:
        # Gradients as autograd hands them over; they change with the weights.
        losses = [(p * t).square().sum() for p, t in zip(working, targets, strict=True)]
        torch.stack(losses).sum().backward()
        ours.step()

    def expect() -> None:
        for p, q, t in zip(working, expected, targets, strict=True):
            q.grad = (2 * (p.detach() * t) * t).float()
        nn.utils.clip_grad_norm_(expected, 1.0)
        reference.step()

    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            ours.zero_grad()
            step()
    torch.cuda.current_stream().wait_stream(stream)
    ours.zero_grad()
    with torch.cuda.graph(graph):
        step()
    ours.bind()
    ours.load_state_dict(
        {
            "step": 0,
            "learning_rate": 1e-3,
            "masters": values,
            "exp_avg": [torch.zeros_like(value) for value in values],
            "exp_avg_sq": [torch.zeros_like(value) for value in values],
        }
    )
    for _ in range(20):
        expect()
        graph.replay()
    assert int(ours.step_count) == 20
    for p, master, q, value in zip(working, ours.masters, expected, values, strict=True):
        moved = float((q.detach() - value).norm())
        # bf16 products of torch's autograd and of `expect` may round apart: 1 % of the way.
        assert float((master - q.detach()).norm()) < 1e-2 * moved
        assert torch.equal(p.detach(), master.to(BF16))


def test_adamw_kernel_is_torchs_with_the_same_gradients() -> None:
    torch.manual_seed(4)
    with torch.device(DEVICE):
        values = list(unet_like())
    for dtype in (BF16, torch.float32):
        pair = [
            kind([nn.Parameter(v.to(BF16)) for v in values], lr=1e-3, max_norm=1.0, masters=values)
            for kind in (FusedAdamW, TorchAdamW)
        ]
        for _ in range(5):
            gradients = [torch.randn_like(value).to(dtype) for value in values]
            for optimizer in pair:
                optimizer.step(gradients)
        torch.testing.assert_close(pair[0].norm, pair[1].norm, rtol=1e-5, atol=0.0)
        for a, b in zip(pair[0].masters, pair[1].masters, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_adamws_time_for_the_whole_model() -> None:
    from dreambooth.kernels.device import adamw as device

    with torch.device(DEVICE):
        values = [value for _ in range(4) for value in unet_like()]
    count = sum(value.numel() for value in values)
    working = [nn.Parameter(value.to(BF16)) for value in values]
    gradients = [torch.randn_like(parameter) for parameter in working]
    for chunk, warps in ((1024, 4), (2048, 4), (2048, 8), (4096, 8), (8192, 8)):
        optimizer = FusedAdamW(working, lr=1e-6, max_norm=1.0)
        optimizer._launcher = device.Launcher(optimizer.layout, optimizer.device, chunk, warps)

        times = []
        for _ in range(9):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            optimizer.step(gradients)
            end.record()
            times.append((start, end))
        torch.cuda.synchronize()
        assert 0 < float(optimizer.norm) < float("inf")
        spent = sorted(float(start.elapsed_time(end)) for start, end in times)[4]
        print(
            f"AdamW of {count / 1e6:.0f} M parameters, chunk {chunk}, {warps} warps: "
            f"{spent:.2f} ms, {30 * count / spent / 1e6:.0f} GB/s",
            flush=True,
        )
        del optimizer


def test_a_residual_with_its_bias_is_torchs() -> None:
    torch.manual_seed(6)
    for shape in ((4, 320, 64, 64), (64, 320, 64, 64), (4, 1280, 8, 8)):
        inputs = [image(shape), image(shape), torch.randn(shape[1], device=DEVICE, dtype=BF16)]
        inputs = [tensor.requires_grad_() for tensor in inputs]
        exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
        y = add_residual(*inputs)
        expected = exact[0] + exact[1] + exact[2][:, None, None]
        assert relative_error(y, expected) < 4e-3
        dy = image(shape)
        found = torch.autograd.grad(y, inputs, dy)
        for a, b in zip(found, torch.autograd.grad(expected, exact, dy.float()), strict=True):
            assert relative_error(a, b) < 6e-3


def test_doubling_is_torchs() -> None:
    torch.manual_seed(8)
    for shape in ((4, 1280, 16, 16), (32, 640, 32, 32)):
        x = image(shape).requires_grad_()
        y, expected = double(x), F.interpolate(x, scale_factor=2.0, mode="nearest")
        assert torch.equal(y, expected)
        dy = image(tuple(y.shape))
        (found,) = torch.autograd.grad(y, x, dy)
        (wanted,) = torch.autograd.grad(expected, x, dy)
        assert relative_error(found, wanted) < 6e-3
        with torch.no_grad():
            ours = milliseconds(partial(double, x))
            theirs = milliseconds(partial(F.interpolate, x, scale_factor=2.0))
        report(f"doubling {shape}", ours, theirs, 10 * x.numel())


def test_column_sums_are_torchs() -> None:
    from dreambooth.kernels.device.sums import column_sums

    torch.manual_seed(9)
    for shape in ((308, 768), (1024, 1280), (16384, 320), (16384, 2560), (65536, 320)):
        x = torch.randn(shape, device=DEVICE, dtype=BF16)
        found = column_sums(x, BF16)
        exact = x.double().sum(0)
        # Against what is summed, not the sum, which is near zero.
        assert float((found.double() - exact).abs().max()) < 1e-2 * shape[0] ** 0.5
        assert torch.equal(found, column_sums(x, BF16))
        ours = milliseconds(partial(column_sums, x, BF16))
        theirs = milliseconds(partial(torch.sum, x, 0))
        report(f"column sums {shape}", ours, theirs, 2 * x.numel())


def test_a_linear_layers_gradients_are_torchs() -> None:
    torch.manual_seed(10)
    for rows, inner, outer in ((16384, 320, 2560), (1024, 5120, 1280)):
        inputs = [
            torch.randn(size, device=DEVICE, dtype=BF16).requires_grad_()
            for size in ((rows, inner), (outer, inner), (outer,))
        ]
        dy = torch.randn(rows, outer, device=DEVICE, dtype=BF16)
        found = torch.autograd.grad(linear(inputs[0], inputs[1], inputs[2]), inputs, dy)
        wanted = torch.autograd.grad(F.linear(inputs[0], inputs[1], inputs[2]), inputs, dy)
        for a, b in zip(found, wanted, strict=True):
            assert relative_error(a, b) < 6e-3


def test_a_fused_unet_agrees_and_its_speed() -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(5)
    torch.backends.cudnn.benchmark = True
    with torch.device(DEVICE):
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            cross_attention_dim=768,
            attention_head_dim=8,
        )
    unet.to(BF16).to(memory_format=torch.channels_last)
    for batch in (4, 32):
        x = image((batch, 4, 64, 64))
        t = torch.full((batch,), 500, device=DEVICE)
        h = torch.randn(batch, 77, 768, device=DEVICE, dtype=BF16)

        def forward(x: Tensor = x, t: Tensor = t, h: Tensor = h) -> Tensor:
            result: Tensor = unet(x, t, h, return_dict=False)[0]
            return result

        def both(forward: Callable[[], Tensor] = forward) -> None:
            unet.zero_grad()
            forward().float().square().mean().backward()

        found = {}
        for name, change in (("plain", unfuse), ("fused", fuse)):
            start = time.perf_counter()
            change(unet)
            with torch.no_grad():
                result = forward()
                torch.cuda.synchronize()
                first = time.perf_counter() - start
                spent = milliseconds(forward, 2)
            found[name] = result
            line = f"UNet {name}, batch {batch}: forward {spent:.2f} ms (first {first:.1f} s)"
            if batch == 4:
                start = time.perf_counter()
                both()
                torch.cuda.synchronize()
                first = time.perf_counter() - start
                unet.zero_grad()
                found[name + " gradient"] = _gradient(unet, both)
                unet.zero_grad()
                spent = milliseconds(both, 1)
                unet.zero_grad()
                line += f", forward and backward {spent:.2f} ms (first {first:.1f} s)"
            print(line, flush=True)
        assert relative_error(found["fused"], found["plain"]) < 3e-2
        if batch == 4:
            assert relative_error(found["fused gradient"], found["plain gradient"]) < 6e-2


def _gradient(unet: nn.Module, both: Callable[[], None]) -> Tensor:
    both()
    return torch.cat([p.grad.flatten() for p in unet.parameters() if p.grad is not None])


def main() -> int:
    """Runs each test in a process of its own: an error on the device ends only that."""
    faulthandler.enable()
    names = [name for name in globals() if name.startswith("test_")]
    if sys.argv[1:] and sys.argv[1] in names:
        globals()[sys.argv[1]]()
        return 0
    failed = []
    for name in names:
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        start = time.perf_counter()
        print(f"=== {name}", flush=True)
        code = subprocess.run([sys.executable, __file__, name], check=False).returncode
        failed += [name] if code else []
        print(f"    exit code {code} after {time.perf_counter() - start:.1f} s", flush=True)
    print(f"failed: {', '.join(failed) or 'none'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
