"""A real cluster for the tests: the one of KUBECONFIG, or this machine's own."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.dreambooth import example
from tests.e2e.kube import Cluster, Kubectl, a_claim, host_state, tool
from tests.e2e.release import Release
from tests.e2e.team import Team


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "disruptive: stops parts of the local cluster; runs late")
    config.addinivalue_line("markers", "final: ends the local cluster; runs after all others")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("disruptive") is not None)
    items.sort(key=lambda item: item.get_closest_marker("final") is not None)
    if items:
        # The first one's time includes what starts the cluster and builds the image.
        items[0].add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """KUBECONFIG's cluster, or this machine's own, which is started (and never left behind)."""
    if kubeconfig := os.environ.get("KUBECONFIG"):
        return Cluster(Kubectl("kubectl", kubeconfig), local=False, before=None)
    before = None if Path("/run/dreambooth-cluster").exists() else host_state()
    tool("up", timeout=1800)
    tool("images", timeout=1800)
    program = tool("binaries", "kubectl").split()[1]
    kubectl = Kubectl(program, tool("kubeconfig").strip())
    return Cluster(kubectl, local=True, before=before)


@pytest.fixture
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """Kubectl in a namespace of the test's own, under the `restricted` Pod Security standard."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )
    yield Kubectl(cluster.kubectl.program, cluster.kubectl.kubeconfig, name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def local(cluster: Cluster) -> Kubectl:
    """Administrator's access to the local cluster."""
    if not cluster.local:
        pytest.skip("KUBECONFIG names another cluster")
    return cluster.kubectl


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    """The operator, installed with helm."""
    release = Release.of(cluster)
    release.install()
    yield release
    release.uninstall()


@pytest.fixture(scope="module")
def team(cluster: Cluster, release: Release) -> Iterator[Team]:
    """A team under the `restricted` Pod Security standard."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )
    kubectl = Kubectl(cluster.kubectl.program, cluster.kubectl.kubeconfig, name)
    kubectl.apply(a_claim(Team.claim), example("photos.yaml"))
    yield Team(kubectl, release)
    cluster.kubectl("delete", "namespace", name, "--wait=false")
