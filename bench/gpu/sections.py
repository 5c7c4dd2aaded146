"""Runs the parts of a bench one after the other, each in a process of its own.

A kernel that reads where it must not takes its process's GPU with it, a compiler may take longer
than there is time, and memory that one part leaves allocated would be missing in the next: parts
know nothing of each other, and what one cannot measure costs only its own figures.
"""

import os
import signal
import subprocess
import sys
import time
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


def run_child(sections: Mapping[str, Section], name: str, tiny: bool, file: Path) -> None:
    """Measures one section in this process and writes what it gives to `file`, as it comes."""
    found = sections[name].measure(tiny)
    if not isinstance(found, Iterator):
        write_json(file, found)
        return
    rows: list[Any] = []
    for row in found:
        rows.append(row)
        write_json(file, rows)


def run_all(
    module: str,
    sections: Mapping[str, Section],
    names: Sequence[str],
    file: Path,
    *,
    tiny: bool,
    budget: float,
) -> dict[str, Any]:
    """Measures the sections `names`, `budget` seconds in all; writes to `file` after each.

    Args:
        module: The bench, as `python -m` runs it; it must know `--child NAME FILE`.
        sections: All it has.
        names: Those to run, in order.
        file: Where the results are kept; sections that are not run stay as they are there.
        tiny: Passed on.
        budget: Sections that it does not reach are left out, and said to be.

    Returns:
        All results by section.
    """
    began = time.monotonic()
    results: dict[str, Any] = read_json(file) or {}
    for name in names:
        left = budget - (time.monotonic() - began)
        if left < 10:
            print(f"== {name}: left out, no time is left", flush=True)
            results[name] = {"failed": "no time was left"}
            continue
        print(f"== {name} ({left:.0f} s left)", flush=True)
        started = time.monotonic()
        # Tiny networks are for trying a bench, on machines that have all time in the world.
        allowed = sections[name].seconds * (TINY_PATIENCE if tiny else 1.0)
        results[name] = _in_child(module, name, tiny, file, min(left, allowed))
        print(f"== {name}: {time.monotonic() - started:.1f} s", flush=True)
        write_json(file, results)
    return results


def _in_child(module: str, name: str, tiny: bool, file: Path, seconds: float) -> Any:
    answer = file.with_name(f"{file.stem}-{name}.part")
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, "--child", name, str(answer)]
    command += ["--tiny"] if tiny else []
    with subprocess.Popen(command, start_new_session=True) as child:
        try:
            status = child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            # Compilers and Ray leave processes of their own behind.
            _end_group(child)
    found = read_json(answer)
    answer.unlink(missing_ok=True)
    if status != 0:
        reason = (
            f"ended with status {status}" if status is not None else f"ended at {seconds:.0f} s"
        )
        print(f"== {name}: {reason}", flush=True)
        found = {"failed": reason} if found is None else found
    return found


def _end_group(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()
