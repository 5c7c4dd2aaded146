"""What holds for every test: no network, no telemetry, the same examples every time."""

import gc
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import hypothesis
import psutil
import pytest

from tests.skips import pytest_runtest_makereport as pytest_runtest_makereport

# Before anything imports them; inherited by the processes that tests start.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Refuse connections that would leave this machine: a test that needs one isn't repeatable."""
    own = {a.address for addresses in psutil.net_if_addrs().values() for a in addresses}
    connect = socket.socket.connect

    def connect_on_this_machine(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and self.type == socket.SOCK_STREAM:
            host = socket.gethostbyname(address[0]) if self.family == socket.AF_INET else address[0]
            if host not in own and not host.startswith("127.") and host != "::1":
                raise ConnectionRefusedError(f"tests have no network: {address[0]}:{address[1]}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_on_this_machine)
        yield


@pytest.fixture(autouse=True, scope="module")
def libraries_are_not_searched_for_garbage() -> None:
    """Hide half a million objects that stay anyway: looking through them takes a third of a second.

    A job does that several times, to give memory back.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let Python's end find them again: some libraries complain of what is left."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_log_of_others() -> Iterator[None]:
    """Take back the logging that a command sets up: its stream is closed when its test is over."""
    root = logging.getLogger()
    level, before = root.level, {id(handler) for handler in root.handlers}
    yield
    for handler in list(root.handlers):
        # Pytest's own handlers are of other types.
        if type(handler) is logging.StreamHandler and id(handler) not in before:
            root.removeHandler(handler)
    root.setLevel(level)
