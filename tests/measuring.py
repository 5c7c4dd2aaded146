"""Which processes coverage measures.

Ray's are ended without a word and lose what they measured, so they needn't be slower for it.
"""

import os

import pytest

_VARIABLE = "COVERAGE_PROCESS_CONFIG"
# The first words of a program: it is measured itself, what it starts isn't.
ALONE = f"import os; os.environ.pop({_VARIABLE!r}, None); "


def unmeasured() -> dict[str, str]:
    """The environment, without what makes a new process measure itself."""
    return {name: value for name, value in os.environ.items() if name != _VARIABLE}


def measure_no_other(patch: pytest.MonkeyPatch) -> None:
    """Processes that this one starts aren't measured until `patch` is undone."""
    patch.delenv(_VARIABLE, raising=False)
