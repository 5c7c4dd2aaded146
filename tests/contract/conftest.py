"""The port on both sides: the fake that simulations trust, and the real API server."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dreambooth_operator.kube.client import KubeClient
from dreambooth_operator.kube.port import KubeApi
from localcluster import binaries
from tests.contract import chart, control_plane
from tests.contract.control_plane import ControlPlane
from tests.contract.hands import FakeHands, Hands, RealHands
from tests.simulation.fake_api import FakeApi
from tests.simulation.server import ApiServer

T = TypeVar("T")

DEFINITION = Path(__file__).parents[2] / "crds" / "dreamboothjobs.yaml"


@dataclass(frozen=True)
class Side:
    """One API.

    Attributes:
        api: As the operator sees it, with the operator's rights.
        hands: Whoever else writes to it.
        runner: The loop that the operator's calls run in.
    """

    api: KubeApi
    hands: Hands
    runner: asyncio.Runner

    def ask(self, call: Coroutine[Any, Any, T]) -> T:
        """What a call of the port gives."""
        return self.runner.run(call)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever comes first may have to build the API server, which takes minutes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real API server that knows DreamBoothJobs and KubeRay's kinds."""
    with control_plane.running(tmp_path_factory.mktemp("control-plane")) as running:
        running.define(DEFINITION)
        for name in ("rayjobs", "rayclusters"):
            running.define(binaries.crds() / f"ray.io_{name}.yaml")
        yield running


@pytest.fixture(scope="session")
def real(plane: ControlPlane) -> Iterator[Side]:
    """The real API server, asked with the rights that the chart gives the operator."""
    with _asked_with(plane, chart.grant(plane)) as side:
        yield side


@pytest.fixture
def fake() -> Iterator[Side]:
    """A fake of its own for each test."""
    server = ApiServer(now=lambda: datetime.now(UTC))
    with asyncio.Runner() as runner:
        yield Side(FakeApi(server), FakeHands(server), runner)


@pytest.fixture(params=["fake", "real"])
def side(request: pytest.FixtureRequest) -> Side:
    """Either: what a test says holds for both."""
    found: Side = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def namespace(side: Side) -> str:
    """A namespace of the test's own."""
    return side.hands.namespace()


@contextmanager
def _asked_with(plane: ControlPlane, token: str) -> Iterator[Side]:
    async def connect() -> KubeClient:
        return KubeClient(lambda: plane.login(token))

    with asyncio.Runner() as runner:
        client = runner.run(connect())
        try:
            yield Side(client, RealHands(plane), runner)
        finally:
            runner.run(client.__aexit__(None, None, None))
