"""The tables about several GPUs, and the plan for more of them, in docs/performance.md."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.gpu.tables import DOCUMENT
from bench.gpu.tables import RESULTS as ONE_GPU
from bench.machine import in_words
from bench.tables import replace_between, table
from dreambooth.workspace.atomic import read_json

GPUS = (2, 4, 8, 16, 32, 64)
# Of one GPU's steps, with which two are compared.
PAIRS = 2
# What a link carries one way, in bytes a second; NVLink's is measured.
NETWORKS = {"100 Gb/s": 12.5e9, "25 Gb/s": 3.125e9}
# Backward takes twice the forward pass's arithmetic: the share of a step in which gradients are
# there to be sent while others are still computed.
OVERLAP_SHARE = 0.6
Results = dict[str, Any]
Lines = list[list[str]]


def write_tables(results: Results) -> None:
    """Puts the figures into docs/performance.md."""
    for name, text in scaling_tables(results, read_json(ONE_GPU) or {}).items():
        replace_between(DOCUMENT, name, text)


def scaling_tables(results: Results, one_gpu: Results) -> dict[str, str]:
    """The tables by the name of their markers; only those that have their figures.

    Args:
        results: Of `bench.gpu_scaling`.
        one_gpu: Of `bench.gpu`, measured on one of the same GPUs.
    """
    if "processor" not in results.get("machine", {}):
        return {}
    on = in_words(results["machine"])
    caption = f"\nMeasured by `make bench-gpu-scaling` on two {on}.\n"
    parts = {
        "gpu-scaling": scaling_lines(results, one_gpu),
        "gpu-recovery": recovery_lines(results),
    }
    if (apart := losses_apart(results, one_gpu)) is not None:
        # Beside the figures, for a table of times has no place for it.
        parts["gpu-losses"] = [
            ["Losses", "At most apart"],
            ["two workers with one pair each, one with two pairs", f"{apart:.2%}"],
        ]
    tables = {name: table(lines) + caption for name, lines in parts.items() if len(lines) > 1}
    plan = plan_lines(results, one_gpu)
    if len(plan) > 1:
        tables["gpu-plan"] = table(plan) + f"\nComputed from step times measured on {on}.\n"
    return tables


def scaling_lines(results: Results, one_gpu: Results) -> Lines:
    """One GPU against two."""
    lines = [["Work", "One GPU", "Two", "Images/s", "All-reduce not hidden", "Memory a GPU"]]
    for title, section, method, each in (
        ("full, 2 pairs each", "full", "full", 2),
        ("full, 1 pair each, 2 on one", "same-batch", "full", 1),
        ("LoRA, 2 pairs each", "lora", "LoRA", 2),
    ):
        alone, two = one_gpu_ms(one_gpu, method), _row(results, section)
        if not (alone and two.get("ms")):
            continue
        # LoRA's gradients take no time worth a share.
        whole = each == PAIRS and method == "full"
        shown = hidden_share(results, alone, two) if whole else None
        lines.append(
            [
                title,
                f"{alone:.1f} ms",
                f"{two['ms']:.1f} ms",
                f"{each * 2 / PAIRS * alone / two['ms']:.2f}×",
                "" if shown is None else f"{shown:.0%}",
                f"{two['peak_gib']:.1f} GiB" if two.get("peak_gib") else "",
            ]
        )
    one, both = _one_gpu_images(one_gpu), _row(results, "full").get("images_a_second")
    if one and both:
        gain = f"{both / one:.2f}×"
        lines.append(["class images", f"{one:.2f} a second", f"{both:.2f} a second", gain, "", ""])
    return lines


def one_gpu_ms(one_gpu: Results, method: str) -> float | None:
    """A step with two pairs on one GPU: of full jobs, and of the trainer where no job was run."""
    if method == "full" and (jobs := [r["step_ms"] for r in _jobs(one_gpu) if r.get("step_ms")]):
        return float(median(jobs))
    rows = one_gpu.get("training")
    for row in rows if isinstance(rows, list) else []:
        if row["method"] == method and row["pairs"] == PAIRS and "ms" in row:
            return float(row["ms"])
    return None


def hidden_share(results: Results, alone_ms: float, two: dict[str, Any]) -> float | None:
    """Of the time that the all-reduce takes alone, what a step is longer for it."""
    sent, bus = _sent_bytes(two), _row(results, "link").get("bus")
    if not sent or not bus:
        return None
    reduce_ms = _ring(2) * sent / bus * 1e3
    share: float = max(0.0, two["ms"] - alone_ms) / reduce_ms
    return share


def losses_apart(results: Results, one_gpu: Results) -> float | None:
    """How far two workers' losses are at most from one worker's with the same pairs, relatively."""
    ours: list[float] = _row(results, "same-batch").get("losses", [])
    theirs: list[float] = next((row["losses"] for row in _jobs(one_gpu) if row.get("losses")), [])
    both = list(zip(ours, theirs, strict=False))
    return max((abs(a - b) / b for a, b in both), default=None)


def recovery_lines(results: Results) -> Lines:
    """A killed worker."""
    found = _row(results, "lora").get("recovery", {})
    if not found.get("killed"):
        return [[]]
    return [
        ["A worker of two is killed", "Step"],
        ["killed after", str(found["killed_after_step"])],
        ["both went on from", ", ".join(str(step) for step in found["resumed_from"])],
        ["first step reported afterwards", str(found["first_step_after"])],
        ["ended with", f"{found['last_step']} of {found['steps']}"],
    ]


@dataclass(frozen=True)
class Training:
    """What the plan needs to know of a method: a step on one GPU, and what workers exchange."""

    name: str
    step_ms: float
    sent_bytes: float
    not_hidden: float


def plan_lines(results: Results, one_gpu: Results) -> Lines:
    """Efficiency at two pairs a worker, by number of GPUs and what connects them."""
    bus = _row(results, "link").get("bus")
    trainings = _trainings(results, one_gpu)
    if not bus or not trainings:
        return [[]]
    links = {"NVLink": bus, **NETWORKS}
    head = [f"{training.name}, {link}" for training in trainings for link in links]
    lines = [["GPUs", *head]]
    for gpus in GPUS:
        cells = []
        for training in trainings:
            for rate in links.values():
                ms = planned_ms(training, gpus, rate)
                cells.append(f"{ms:.0f} ms, {training.step_ms / ms:.0%}")
        lines.append([str(gpus), *cells])
    return lines


def planned_ms(training: Training, gpus: int, bytes_a_second: float) -> float:
    """A step on `gpus` GPUs connected in a ring by links of `bytes_a_second`.

    What the backward pass hides is hidden but for the share that measurements on two GPUs show.
    """
    reduce_ms = _ring(gpus) * training.sent_bytes / bytes_a_second * 1e3
    window = OVERLAP_SHARE * training.step_ms
    shown = max(training.not_hidden * reduce_ms, reduce_ms - window)
    return training.step_ms + shown


def _trainings(results: Results, one_gpu: Results) -> list[Training]:
    found = []
    for section, name in (("full", "full"), ("lora", "LoRA")):
        alone, two = one_gpu_ms(one_gpu, name), _row(results, section)
        share = hidden_share(results, alone, two) if alone and two.get("ms") else None
        if alone is None or share is None:
            continue
        # Launching costs a step something too, even where there is next to nothing to send.
        found.append(Training(name, alone, _sent_bytes(two), min(1.0, share)))
    return found


def _ring(workers: int) -> float:
    """How often each byte passes a link in a ring all-reduce."""
    return 2 * (workers - 1) / workers


def _sent_bytes(row: dict[str, Any]) -> float:
    engine = row.get("training", {}).get("engine") or {}
    return float((engine.get("allReduce") or {}).get("bytes", 0))


def _row(results: Results, section: str) -> dict[str, Any]:
    found = results.get(section)
    return found if isinstance(found, dict) else {}


def _jobs(one_gpu: Results) -> list[dict[str, Any]]:
    found = one_gpu.get("job")
    return found if isinstance(found, list) else []


def _one_gpu_images(one_gpu: Results) -> float | None:
    rates = [row["class_images_a_second"] for row in _jobs(one_gpu)]
    rates = [rate for rate in rates if rate]
    return median(rates) if rates else None
