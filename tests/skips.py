"""In CI a test that cannot run has failed: what it needs was promised to be there."""

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a skip as a failure where the environment has CI; it still names what is missing."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        *_, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", "no reason")
        report.outcome = "failed"
        report.longrepr = f"{reason}, which is a failure in CI"
    return report
