"""Sections of a bench: what one cannot measure costs only its own figures."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.gpu.sections import Section, group_of, run_all, run_child
from dreambooth.workspace.atomic import read_json


def rows_then_fail(_: bool) -> Iterator[int]:
    yield 1
    yield 2
    raise RuntimeError("the third cannot be measured")


def fail(_: bool) -> Any:
    raise ValueError("no such kernel")


SECTIONS = {
    "good": Section(lambda tiny: {"tiny": tiny}, 30),
    "bad": Section(fail, 30),
    "half": Section(rows_then_fail, 30),
}


def test_sections_of_a_group_are_measured_one_after_the_other_whatever_fails(
    tmp_path: Path,
) -> None:
    file = tmp_path / "answer.json"
    run_child(SECTIONS, "bad+half+good", True, file)
    assert read_json(file) == {
        "bad": {"failed": "ValueError: no such kernel"},
        "half": [1, 2],
        "good": {"tiny": True},
    }


def test_a_group_may_only_name_sections_there_are() -> None:
    check = group_of(SECTIONS)
    assert check("good+half") == "good+half"
    with pytest.raises(ValueError, match="no section worse"):
        check("good+worse")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bench of which one section dies without a word, as a process with a bad kernel does."""
    source = """
        import json, os, sys
        group, file = sys.argv[2:4]
        with open(file, "w") as out:
            json.dump({"first": "measured"}, out)
        if "deadly" in group:
            os._exit(7)
    """
    (tmp_path / "small_bench.py").write_text(textwrap.dedent(source))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert sys.executable
    return "small_bench"


def test_a_process_that_dies_leaves_what_it_had_measured(module: str, tmp_path: Path) -> None:
    sections = {name: SECTIONS["good"] for name in ("first", "deadly")}
    file = tmp_path / "results.json"
    file.write_text('{"earlier": 1}')
    found = run_all(module, sections, ["first+deadly"], file, tiny=False, budget=60)
    assert found == {
        "earlier": 1,
        "first": "measured",
        "deadly": {"failed": "ended with status 7"},
    }
    assert read_json(file) == found


def test_what_there_is_no_time_for_keeps_its_earlier_figures(module: str, tmp_path: Path) -> None:
    sections = {"first": SECTIONS["good"]}
    file = tmp_path / "results.json"
    file.write_text('{"first": "earlier"}')
    assert run_all(module, sections, ["first"], file, tiny=False, budget=5) == {"first": "earlier"}
