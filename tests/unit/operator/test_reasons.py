"""The reasons are documented, all of them, and no others."""

import ast
import re
from collections import Counter
from pathlib import Path

from dreambooth_operator.reasons import Reason

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "reference" / "reasons.md").read_text(encoding="utf-8")


def documented() -> Counter[str]:
    """Words in the first column of the page's tables."""
    rows = re.findall(r"^\| (`.+?`) \|", PAGE, re.M)
    return Counter(word for row in rows for word in re.findall(r"`([A-Za-z]+)`", row))


def of_the_runtime() -> set[str]:
    """Reasons that the runtime gives its errors."""
    found = set()
    for file in (ROOT / "runtime" / "dreambooth").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            value = None
            if isinstance(node, ast.keyword) and node.arg == "reason":
                value = node.value
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                value = node.value if "default_reason" in names else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.add(value.value)
    return found


def test_every_reason_is_explained_once() -> None:
    assert {word: count for word, count in documented().items() if count > 1} == {}


def test_every_reason_of_the_operator_is_explained() -> None:
    assert {str(reason) for reason in Reason} - set(documented()) == set()


def test_every_reason_of_the_runtime_is_explained() -> None:
    # Failed is the base class's, which is never raised itself.
    assert of_the_runtime() - set(documented()) - {"Failed"} == set()


def test_no_reason_is_explained_that_nobody_gives() -> None:
    known = {str(reason) for reason in Reason} | of_the_runtime() | {"Failed"}
    assert set(documented()) - known == set()


def test_a_reason_is_one_word() -> None:
    assert all(re.fullmatch(r"[A-Z][A-Za-z0-9]*", word) for word in documented())
