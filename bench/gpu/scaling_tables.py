"""The tables about several GPUs, and the plan for more of them, in docs/performance.md."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.gpu.tables import DOCUMENT
from bench.machine import in_words
from bench.tables import replace_between, table

GPUS = (2, 4, 8, 16, 32, 64)
# What a link carries one way, in bytes a second; NVLink's is measured.
NETWORKS = {"100 Gb/s": 12.5e9, "25 Gb/s": 3.125e9}
# Backward takes twice the forward pass's arithmetic: the share of a step in which gradients are
# there to be sent while others are still computed.
OVERLAP_SHARE = 0.6
Results = dict[str, Any]
Lines = list[list[str]]


def write_tables(results: Results) -> None:
    """Puts the figures into docs/performance.md."""
    for name, text in scaling_tables(results).items():
        replace_between(DOCUMENT, name, text)


def scaling_tables(results: Results) -> dict[str, str]:
    """The tables by the name of their markers; only those that have their figures."""
    if "processor" not in results.get("machine", {}):
        return {}
    on = in_words(results["machine"])
    caption = f"\nMeasured by `make bench-gpu-scaling` on two {on}.\n"
    parts = {
        "gpu-scaling": scaling_lines(results),
        "gpu-recovery": recovery_lines(results),
    }
    tables = {name: table(lines) + caption for name, lines in parts.items() if len(lines) > 1}
    plan = plan_lines(results)
    if len(plan) > 1:
        tables["gpu-plan"] = table(plan) + f"\nComputed from step times measured on {on}.\n"
    return tables


def scaling_lines(results: Results) -> Lines:
    """One GPU against two."""
    lines = [["Work", "One GPU", "Two", "Images/s", "All-reduce not hidden", "Memory a GPU"]]
    for method in ("full", "lora"):
        name = "full" if method == "full" else "LoRA"
        for title, alone, both in (
            (f"{name}, the same batch: 2 pairs in all", (1, 2), (2, 2)),
            (f"{name}, the same batch a worker: 2 pairs each", (1, 2), (2, 4)),
        ):
            one, two = _training(results, method, *alone), _training(results, method, *both)
            if not (one.get("ms") and two.get("ms")):
                continue
            gain = (both[1] / two["ms"]) / (alone[1] / one["ms"])
            shown = hidden_share(results, one, two) if alone[1] * 2 == both[1] else None
            lines.append(
                [
                    title,
                    f"{one['ms']:.1f} ms",
                    f"{two['ms']:.1f} ms",
                    f"{gain:.2f}×",
                    "" if shown is None else f"{shown:.0%}",
                    f"{two['peak_gib']:.1f} GiB" if two.get("peak_gib") else "",
                ]
            )
    one_rate, two_rate = (_drawn(results, gpus) for gpus in (1, 2))
    if one_rate and two_rate:
        lines.append(
            [
                "class images",
                f"{one_rate:.2f} images/s",
                f"{two_rate:.2f} images/s",
                f"{two_rate / one_rate:.2f}×",
                "",
                "",
            ]
        )
    return lines


def hidden_share(results: Results, one: dict[str, Any], two: dict[str, Any]) -> float | None:
    """Of the time that the all-reduce takes alone, what a step is longer for it."""
    sent = _sent_bytes(two)
    bus = results.get("link", {}).get("bus")
    if not sent or not bus:
        return None
    alone_ms = _ring(2) * sent / bus * 1e3
    extra: float = max(0.0, two["ms"] - one["ms"]) / alone_ms
    return extra


def recovery_lines(results: Results) -> Lines:
    """A killed worker."""
    found = results.get("recovery", {})
    if "killed_after_step" not in found:
        return [[]]
    return [
        ["What", "Step"],
        ["one of two workers killed after", str(found["killed_after_step"])],
        ["went on from", ", ".join(str(step) for step in found["resumed_from"])],
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


def plan_lines(results: Results) -> Lines:
    """Efficiency at two pairs a worker, by number of GPUs and what connects them."""
    bus = results.get("link", {}).get("bus")
    trainings = _trainings(results)
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


def _trainings(results: Results) -> list[Training]:
    found = []
    for method, name in (("full", "full"), ("lora", "LoRA")):
        one, two = _training(results, method, 1, 2), _training(results, method, 2, 4)
        share = hidden_share(results, one, two) if one.get("ms") and two.get("ms") else None
        if share is None:
            continue
        # Launching costs a step something too, even where there is next to nothing to send.
        found.append(Training(name, one["ms"], _sent_bytes(two), min(1.0, share)))
    return found


def _ring(workers: int) -> float:
    """How often each byte passes a link in a ring all-reduce."""
    return 2 * (workers - 1) / workers


def _sent_bytes(row: dict[str, Any]) -> float:
    engine = row.get("training", {}).get("engine") or {}
    return float((engine.get("allReduce") or {}).get("bytes", 0))


def _training(results: Results, method: str, workers: int, pairs: int) -> dict[str, Any]:
    rows = results.get("training")
    wanted = (method, workers, pairs)
    for row in rows if isinstance(rows, list) else []:
        if (row["method"], row["workers"], row["pairs"]) == wanted:
            return dict(row)
    return {}


def _drawn(results: Results, gpus: int) -> float | None:
    rows = results.get("drawing")
    rates = [
        row["images_a_second"]
        for row in (rows if isinstance(rows, list) else [])
        if row["gpus"] == gpus and row.get("images_a_second")
    ]
    return median(rates) if rates else None
