"""The tables about several GPUs, and the plan for more of them, in docs/performance.md."""

from dataclasses import dataclass
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
# Of a step on one GPU, what the optimizer's update takes (`--section profile-training`).
UPDATE_SHARE = 0.17
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
    caption = f"\nMeasured by `make bench-gpu-scaling` on {on}.\n"
    parts = {
        "gpu-scaling": scaling_lines(results),
        "gpu-recovery": recovery_lines(results),
    }
    if (apart := losses_apart(results)) is not None:
        # Beside the figures, for a table of times has no place for it.
        parts["gpu-losses"] = [
            ["Losses", "At most apart"],
            ["two workers with one pair each, one with two pairs", f"{apart:.2%}"],
        ]
    tables = {name: table(lines) + caption for name, lines in parts.items() if len(lines) > 1}
    plan = plan_lines(results)
    if len(plan) > 1:
        tables["gpu-plan"] = table(plan) + f"\nComputed from step times measured on {on}.\n"
    return tables


def scaling_lines(results: Results) -> Lines:
    """One GPU against two, and four."""
    head = ["Work", "One GPU", "Several", "Images/s", "All-reduce not hidden", "Memory a GPU"]
    lines = [head]
    for title, one, section, gain in (
        ("two GPUs: full, 2 pairs each", "one", "full", 2.0),
        ("two GPUs: full, 1 pair each, 2 on one", "one", "same-batch", 1.0),
        ("two GPUs: LoRA, 2 pairs each", "one-lora", "lora", 2.0),
        ("four GPUs: full, 2 pairs each", "one", "four", 4.0),
    ):
        alone, several = _row(results, one).get("ms"), _row(results, section)
        if not (alone and several.get("ms")):
            continue
        # LoRA's gradients take no time worth a share; four share links that were not measured.
        shown = hidden_share(results, alone, several) if section == "full" else None
        lines.append(
            [
                title,
                f"{alone:.1f} ms",
                f"{several['ms']:.1f} ms",
                f"{gain * alone / several['ms']:.2f}×",
                "" if shown is None else f"{shown:.0%}",
                f"{several['peak_gib']:.1f} GiB" if several.get("peak_gib") else "",
            ]
        )
    for title, section, figure in (
        ("two GPUs: class images", "full", "images_a_second"),
        ("two GPUs: pictures of the subject", "full", "pictures_a_second"),
        ("four GPUs: class images", "four", "images_a_second"),
        ("four GPUs: pictures of the subject", "four", "pictures_a_second"),
    ):
        one_rate, rate = _row(results, "one").get(figure), _row(results, section).get(figure)
        if one_rate and rate:
            cells = [f"{one_rate:.2f} a second", f"{rate:.2f} a second", f"{rate / one_rate:.2f}×"]
            lines.append([title, *cells, "", ""])
    return lines


def hidden_share(results: Results, alone_ms: float, two: dict[str, Any]) -> float | None:
    """Of the time that the all-reduce takes alone, what a step is longer for it."""
    sent, bus = _sent_bytes(two), _row(results, "link").get("bus")
    if not sent or not bus:
        return None
    reduce_ms = _ring(2) * sent / bus * 1e3
    share: float = max(0.0, two["ms"] - alone_ms) / reduce_ms
    return share


def losses_apart(results: Results) -> float | None:
    """How far two workers' losses are at most from one worker's with the same pairs, relatively."""
    ours: list[float] = _row(results, "same-batch").get("losses", [])
    theirs: list[float] = _row(results, "one").get("losses", [])
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
    """What the plan needs to know of a method.

    Attributes:
        name: Of the method.
        step_ms: On one GPU.
        sent_bytes: What is added up, or with `shared` added up and sent back.
        not_hidden: Of the time that a sum everywhere takes alone, what two GPUs are longer for it.
        shared: Whether workers share the optimizer's state out.
    """

    name: str
    step_ms: float
    sent_bytes: float
    not_hidden: float
    shared: bool = False


def plan_lines(results: Results) -> Lines:
    """Efficiency at two pairs a worker, by number of GPUs and what connects them."""
    bus = _row(results, "link").get("bus")
    trainings = _trainings(results)
    if not bus or not trainings:
        return [[]]
    links = {"NVLink": bus, **NETWORKS}
    head = [f"{training.name}, {link}" for training in trainings for link in links]
    measured = {2: _row(results, "full").get("ms"), 4: _row(results, "four").get("ms")}
    lines = [["GPUs", *head, "full, measured"]]
    for gpus in GPUS:
        cells = []
        for training in trainings:
            for rate in links.values():
                ms = planned_ms(training, gpus, rate)
                cells.append(f"{ms:.0f} ms, {training.step_ms / ms:.0%}")
        found, alone = measured.get(gpus), trainings[0].step_ms
        cells.append(f"{found:.0f} ms, {alone / found:.0%}" if found else "")
        lines.append([str(gpus), *cells])
    return lines


def planned_ms(training: Training, gpus: int, bytes_a_second: float) -> float:
    """A step on `gpus` GPUs connected in a ring by links of `bytes_a_second`.

    What the backward pass hides is hidden but for the share that measurements on two GPUs show.
    Where the optimizer's state is shared out, the pass hides one half of what is sent, the
    update the other, and the update is the shorter the more GPUs there are.
    """
    sent_ms = _ring(gpus) * training.sent_bytes / bytes_a_second * 1e3
    window = OVERLAP_SHARE * training.step_ms
    longer = sent_ms - window
    if training.shared:
        update = UPDATE_SHARE * training.step_ms
        own_update = update / gpus
        gradients, weights = max(0.0, sent_ms / 2 - window), max(0.0, sent_ms / 2 - own_update)
        longer = gradients + weights - (update - own_update)
    return training.step_ms + max(training.not_hidden * sent_ms, longer)


def _trainings(results: Results) -> list[Training]:
    found = []
    for one, section, name in (("one", "full", "full"), ("one-lora", "lora", "LoRA")):
        alone, two = _row(results, one).get("ms"), _row(results, section)
        share = hidden_share(results, alone, two) if alone and two.get("ms") else None
        if alone is None or share is None:
            continue
        # Launching costs a step something too, even where there is next to nothing to send.
        found.append(Training(name, alone, _sent_bytes(two), min(1.0, share), _is_shared(two)))
    return found


def _ring(workers: int) -> float:
    """How often each byte passes a link in a ring all-reduce."""
    return 2 * (workers - 1) / workers


def _sent_bytes(row: dict[str, Any]) -> float:
    engine = row.get("training", {}).get("engine") or {}
    return float((engine.get("allReduce") or {}).get("bytes", 0))


def _is_shared(row: dict[str, Any]) -> bool:
    return "optimizerState" in (row.get("training", {}).get("engine") or {})


def _row(results: Results, section: str) -> dict[str, Any]:
    found = results.get(section)
    return found if isinstance(found, dict) else {}
