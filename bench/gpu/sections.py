"""Runs the parts of a bench one after the other, each in a process of its own.

A kernel that reads where it must not takes its process's GPU with it, a compiler may take longer
than there is time, and memory that one part leaves allocated would be missing in the next: parts
know nothing of each other, and what one cannot measure costs only its own figures.
"""

import argparse
import gc
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreambooth.workspace.atomic import read_json, write_json

TINY_PATIENCE = 10.0


@dataclass(frozen=True)
class Section:
    """A part of a bench.

    Attributes:
        measure: Does it; given whether to do it with tiny networks, returns what is JSON-able, or
            an iterator of it, of which nothing is lost that has been given.
        seconds: It is ended after so long.
    """

    measure: Callable[[bool], Any]
    seconds: float


TOGETHER = "+"


def group_of(sections: Mapping[str, Section]) -> Callable[[str], str]:
    """What checks an argument: a section's name, or several, joined by a plus."""

    def check(value: str) -> str:
        unknown = [name for name in value.split(TOGETHER) if name not in sections]
        if unknown:
            raise ValueError(f"no section {unknown[0]}")
        return value

    check.__name__ = "section"
    return check


def section_parser(
    description: str | None, sections: Mapping[str, Section], results: Path, budget: float
) -> argparse.ArgumentParser:
    """The options that all benches made of sections have.

    Args:
        description: The bench's own words.
        sections: All it has.
        results: Where its figures go by default.
        budget: Seconds that it may take by default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--section",
        action="append",
        type=group_of(sections),
        help="only this; may be given several times; a+b share a process",
    )
    parser.add_argument("--without", action="append", choices=sections, default=[])
    parser.add_argument("--budget", type=float, default=budget, help="seconds in all")
    parser.add_argument("--out", type=Path, default=results, help="where the figures go")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try the bench")
    parser.add_argument("--child", nargs=2, metavar=("SECTION", "FILE"), help=argparse.SUPPRESS)
    return parser


def run_chosen(
    module: str,
    sections: Mapping[str, Section],
    options: argparse.Namespace,
    is_prepared: Callable[[bool], bool] = lambda tiny: True,
) -> None:
    """Measures what the options of `section_parser` choose, the section `prepare` first if needed.

    Args:
        module: The bench, as `python -m` runs it.
        sections: All it has.
        options: As parsed.
        is_prepared: Whether what `prepare` makes is there.
    """
    names = [name for name in options.section or sections if name not in options.without]
    if "prepare" not in names and not is_prepared(options.tiny):
        names.insert(0, "prepare")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    run_all(module, sections, names, options.out, tiny=options.tiny, budget=options.budget)


def run_child(sections: Mapping[str, Section], group: str, tiny: bool, file: Path) -> None:
    """Measures the sections of a group in this process and writes to `file` what comes of them."""
    began = time.monotonic()
    results: dict[str, Any] = {}

    def keep(name: str, value: Any) -> None:
        results[name] = value
        write_json(file, results)
        print(
            f"   {name}: {time.monotonic() - began:.1f} s after the process was ready", flush=True
        )

    for name in group.split(TOGETHER):
        try:
            found = sections[name].measure(tiny)
            if not isinstance(found, Iterator):
                keep(name, found)
                continue
            rows: list[Any] = []
            for row in found:
                rows.append(row)
                keep(name, rows)
        except Exception as error:
            traceback.print_exc()
            failed = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
            keep(name, results.get(name) or failed)
        _forget()


def _forget() -> None:
    """Leaves the next section of a group the GPU's memory."""
    torch = sys.modules.get("torch")
    gc.collect()
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def run_all(
    module: str,
    sections: Mapping[str, Section],
    groups: Sequence[str],
    file: Path,
    *,
    tiny: bool,
    budget: float,
) -> dict[str, Any]:
    """Measures groups of sections, `budget` seconds in all; writes to `file` after each.

    Args:
        module: The bench, as `python -m` runs it; it must know `--child GROUP FILE`.
        sections: All it has.
        groups: Those to run, in order; each in a process of its own.
        file: Where the results are kept; sections that are not run stay as they are there.
        tiny: Passed on.
        budget: Groups that it does not reach are left out, and said to be.

    Returns:
        All results by section.
    """
    began = time.monotonic()
    results: dict[str, Any] = read_json(file) or {}
    for group in groups:
        left = budget - (time.monotonic() - began)
        if left < 10:
            print(f"== {group}: left out, no time is left", flush=True)
            continue
        print(f"== {group} ({left:.0f} s left)", flush=True)
        started = time.monotonic()
        allowed = sum(sections[name].seconds for name in group.split(TOGETHER))
        # Tiny networks are for trying a bench, on machines that have all time in the world.
        allowed *= TINY_PATIENCE if tiny else 1.0
        results |= _in_child(module, group, tiny, file, min(left, allowed))
        print(f"== {group}: {time.monotonic() - started:.1f} s", flush=True)
        write_json(file, results)
    return results


def _in_child(module: str, group: str, tiny: bool, file: Path, seconds: float) -> dict[str, Any]:
    """What the group's sections gave; those that gave nothing are said to have failed."""
    names = group.split(TOGETHER)
    answer = file.with_name(f"{file.stem}-{names[0]}.part")
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, "--child", group, str(answer)]
    command += ["--tiny"] if tiny else []
    with subprocess.Popen(command, start_new_session=True) as child:
        try:
            status = child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            # Compilers and Ray leave processes of their own behind.
            _end_group(child)
    found: dict[str, Any] = read_json(answer) or {}
    answer.unlink(missing_ok=True)
    reason = f"ended with status {status}" if status is not None else f"ended at {seconds:.0f} s"
    if status != 0:
        print(f"== {group}: {reason}", flush=True)
    return {name: found.get(name, {"failed": reason}) for name in names}


def _end_group(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()
