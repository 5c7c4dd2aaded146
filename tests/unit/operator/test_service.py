"""The whole operator as one process: kopf's watches, queue, workers, probes and its end."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kopf
import pytest

from dreambooth_operator import service as module
from dreambooth_operator.config import Config, Lease
from dreambooth_operator.kube.client import KubeClient
from dreambooth_operator.kube.kinds import CLAIM, JOB, LEASE, RAY_JOB, Object, Ref, ref_of
from dreambooth_operator.main import main
from dreambooth_operator.service import CannotStart, Service, StartAgain
from tests.simulation.server import ApiServer
from tests.unit.operator.builders import a_config, a_job
from tests.unit.operator.http_api import HttpApi

REX = Ref(JOB, "default", "rex")
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: SERVER}}]
users: [{name: test, user: {token: secret}}]
"""


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the KUBECONFIG of an address, for kopf."""
    file = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(file))

    def write(url: str) -> None:
        file.write_text(KUBECONFIG.replace("SERVER", url))

    return write


def put(server: ApiServer, obj: Object) -> None:
    """Make an object as someone else."""
    metadata = {"name": obj["metadata"]["name"], "namespace": "default"}
    obj = {**obj, "metadata": metadata}
    server.apply(ref_of(obj), obj, "someone")


def a_server() -> ApiServer:
    """With the default volume."""
    server = ApiServer(now=lambda: datetime.now(UTC))
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    put(server, CLAIM.new("default", "volume", spec=spec))
    return server


async def eventually(api: HttpApi, condition: Callable[[ApiServer], Any]) -> Any:
    """Wait until the condition holds; pytest's time-out ends what never comes."""
    while not (found := await api.do(condition)):
        await asyncio.sleep(0.02)
    return found


def run(
    api: HttpApi,
    course: Callable[[Service], Coroutine[Any, Any, None]],
    kubeconfig: Callable[[str], None],
    config: Config | None = None,
) -> None:
    """Run the operator during a course of events, then end it by SIGTERM."""

    async def all_of_it() -> None:
        with api.serving() as url:
            kubeconfig(url)
            login = kopf.ConnectionInfo(server=url)
            async with KubeClient(lambda: login) as client:
                service = Service(config or a_config(port=0), client)
                running = asyncio.create_task(service.run())
                following = asyncio.create_task(course(service))
                await asyncio.wait([running, following], return_when=asyncio.FIRST_COMPLETED)
                if not running.done():
                    following.result()
                    os.kill(os.getpid(), signal.SIGTERM)
                following.cancel()
                await running

    asyncio.run(all_of_it())


def test_a_job_that_is_made_gets_its_ray_job_and_kopf_writes_nothing(
    kubeconfig: Callable[[str], None],
) -> None:
    api = HttpApi(a_server())

    async def course(service: Service) -> None:
        await api.do(lambda server: put(server, a_job().build()))
        (ray_job,) = await eventually(api, lambda server: server.get_all(RAY_JOB, "default", {}))
        job = await api.do(lambda server: server.get(REX))
        assert ray_job["metadata"]["name"] == job["status"]["rayJob"]
        # A RayJob that changes wakes its job.
        status = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
        await api.do(lambda server: server.patch_status(ref_of(ray_job), status, "kuberay"))
        await eventually(api, lambda server: server.get(REX)["status"]["phase"] == "Running")
        assert service.metrics.busy == 1

    run(api, course, kubeconfig)
    job = api.server.get(REX)
    assert "annotations" not in job["metadata"]
    assert "finalizers" not in job["metadata"]
    assert "PATCH DreamBoothJob" not in api.writes
    assert api.writes.count("PATCH RayJob") == 1


def test_it_runs_as_a_user_whose_id_has_no_name(
    kubeconfig: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr("getpass.getuser", unknown)
    api = HttpApi(a_server())

    async def course(service: Service) -> None:
        await api.do(lambda server: put(server, a_job().build()))
        await eventually(api, lambda server: server.get_all(RAY_JOB, "default", {}))

    run(api, course, kubeconfig)


def test_a_job_that_the_watch_does_not_tell_of_is_found_and_the_probe_says_so(
    kubeconfig: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.1)
    api = HttpApi(a_server())
    api.deaf.add(JOB)

    async def course(service: Service) -> None:
        await api.do(lambda server: put(server, a_job().build()))
        await eventually(api, lambda server: server.get_all(RAY_JOB, "default", {}))
        # The list at the start is heard of; what happens after it is not.
        changes = iter(range(10**9))

        def change(server: ApiServer) -> bool:
            labels = {"metadata": {"labels": {"change": str(next(changes))}}}
            server.patch(REX, labels, "someone")
            return service.health.missed_since is not None

        await eventually(api, change)

    run(api, course, kubeconfig)
    assert api.server.get(REX)["status"]["attempt"] == 1


def test_kuberay_that_is_installed_later_makes_the_operator_start_again(
    kubeconfig: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.1)
    api = HttpApi(a_server())
    api.server.served.discard(RAY_JOB)

    async def course(_: Service) -> None:
        await api.do(lambda server: put(server, a_job().build()))
        await eventually(api, lambda server: "status" in server.get(REX))
        job = await api.do(lambda server: server.get(REX))
        accepted = job["status"]["conditions"][0]
        assert accepted["reason"] == "KubeRayNotFound"
        await api.do(lambda server: server.served.add(RAY_JOB))
        await asyncio.Event().wait()

    with pytest.raises(BaseExceptionGroup) as caught:
        run(api, course, kubeconfig)
    assert caught.value.subgroup(StartAgain) is not None


def test_without_the_api_of_jobs_the_operator_says_what_to_install(
    kubeconfig: Callable[[str], None],
) -> None:
    api = HttpApi(a_server())
    api.server.served.discard(JOB)

    async def course(_: Service) -> None:
        await asyncio.Event().wait()

    with pytest.raises(CannotStart, match=r"Install crds/dreamboothjobs\.yaml"):
        run(api, course, kubeconfig)


def test_the_lease_is_held_while_the_operator_works_and_given_back(
    kubeconfig: Callable[[str], None],
) -> None:
    api = HttpApi(a_server())
    where = Ref(LEASE, "default", "dreambooth-operator")
    config = replace(a_config(port=0), lease=Lease(enabled=True))

    async def course(_: Service) -> None:
        lease = await eventually(api, lambda server: server.find(where))
        assert lease["spec"]["holderIdentity"].startswith("dreambooth-operator-")
        await api.do(lambda server: put(server, a_job().build()))
        await eventually(api, lambda server: server.get_all(RAY_JOB, "default", {}))

    run(api, course, kubeconfig, config)
    assert api.server.get(where)["spec"]["holderIdentity"] == ""


def test_the_command_says_why_it_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    file = tmp_path / "config.yaml"
    file.write_text("runtime: {image: i}\npools:\n  gpu: {cpu: 1, memory: 1Gi}\n")
    assert main(["--config", str(file)]) == 1
    assert "credentials for the cluster cannot be read" in capfd.readouterr().err
