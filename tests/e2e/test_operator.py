"""DreamBoothJobs on a real cluster: what is done about things that go wrong."""

import json
import time

import pytest

from tests.e2e.dreambooth import JobUnderTest, Status, a_job, condition, stage
from tests.e2e.kube import Kubectl, a_claim, eventually
from tests.e2e.release import DEPLOYMENT
from tests.e2e.team import LONG, SOON, Team, kill_training, machines


@pytest.mark.timeout(1800)
def test_a_job_outlives_a_killed_worker_process_and_an_operator_that_is_away_for_a_minute(
    team: Team,
) -> None:
    job = team.submit(a_job("hardy", team.claim, steps=160))
    before = job.trains_beyond(8, LONG)
    team.release.kubectl("scale", DEPLOYMENT, "--replicas=0")
    away = time.monotonic()
    eventually("the operator is gone", lambda: not operators(team), SOON)
    kill_training(job)
    eventually("a minute has passed", lambda: time.monotonic() - away >= 60, 70)
    team.release.kubectl("scale", DEPLOYMENT, "--replicas=1")
    team.release.kubectl.wait("--for=condition=Available", DEPLOYMENT, seconds=SOON)
    job.until("its status moves on", lambda status: status["progress"] != before["progress"], SOON)
    team.release.kubectl("delete", "pod", operators(team)[0])
    status = job.succeeds(LONG)
    (attempt,) = status["attempts"]
    assert attempt["rayJob"] == before["attempts"][0]["rayJob"]
    assert attempt["resumedFromStep"] > 0
    assert status["progress"]["percent"] == 100


def operators(team: Team) -> list[str]:
    """The names of the operator's pods."""
    pods = team.release.kubectl.list("pods", "-l", "app.kubernetes.io/name=dreambooth-operator")
    return [pod["metadata"]["name"] for pod in pods]


@pytest.mark.timeout(900)
def test_photos_that_cannot_be_read_fail_the_job_at_once_and_are_not_tried_again(
    team: Team,
) -> None:
    team.kubectl("create", "configmap", "bad-photos", "--from-literal=rex.png=not a picture at all")
    photos = {"class": "robot", "photos": {"configMap": {"name": "bad-photos"}}}
    job = team.submit(a_job("bad-photos", team.claim, subject=photos))
    job.until("it has its machines", lambda status: "startTime" in stage(status, "photos"), LONG)
    eventually("it has failed", lambda: job.status["phase"] == "Failed", 60)
    failed = job.condition("Succeeded")
    assert failed["status"] == "False"
    assert "spec.subject.photos" in failed["message"] and "rex.png" in failed["message"]
    (attempt,) = job.status["attempts"]
    assert attempt["failure"] == "user"
    assert attempt["reason"] == failed["reason"]
    eventually("its machines are given back", lambda: not machines(job), SOON)


@pytest.mark.timeout(900)
def test_a_job_says_what_it_misses_and_starts_when_it_is_there(team: Team) -> None:
    nowhere = a_job("nowhere", team.claim, cluster={"pool": "moon", "workers": 1})
    homeless = a_job("homeless", "not-there-yet")
    waiting = [team.submit(manifest) for manifest in (nowhere, homeless)]
    says_why(waiting[0], "UnknownPool", "moon", "gpu")
    says_why(waiting[1], "ClaimNotFound", "not-there-yet", team.kubectl.namespace)
    assert not any(job.pods("head") for job in waiting)
    team.kubectl.apply(a_claim("not-there-yet"))
    team.release.install("--set", "pools.moon.cpu=1,pools.moon.memory=3Gi")
    try:
        for job in waiting:
            job.until("it starts", starts, SOON)
    finally:
        for job in waiting:
            team.kubectl("delete", "dreamboothjob", job.name)
        team.release.install()


@pytest.mark.disruptive
@pytest.mark.timeout(900)
def test_a_job_waits_for_kuberay_where_it_is_not_installed(team: Team, local: Kubectl) -> None:
    kuberay = Kubectl(local.program, local.kubeconfig, "kuberay-system")
    definition = local.get("crd", "rayjobs.ray.io")
    eventually("no RayJob is left", lambda: not local.list("rayjobs", "--all-namespaces"), SOON)
    kuberay("scale", "deployment/kuberay-operator", "--replicas=0")
    local("delete", "crd", "rayjobs.ray.io")
    try:
        job = team.submit(a_job("early", team.claim))
        says_why(job, "KubeRayNotFound", "KubeRay 1.6 or newer")
        assert not job.pods("head")
    finally:
        fields = ("apiVersion", "kind", "spec")
        metadata = {"name": definition["metadata"]["name"]}
        again = {field: definition[field] for field in fields} | {"metadata": metadata}
        local("create", "-f", "-", stdin=json.dumps(again))
        kuberay("scale", "deployment/kuberay-operator", "--replicas=1")
        kuberay.wait("--for=condition=Available", "deployment/kuberay-operator", seconds=SOON)
    job.until("it starts", starts, SOON)
    team.kubectl("delete", "dreamboothjob", job.name)


def says_why(job: JobUnderTest, reason: str, *words: str) -> None:
    """Wait until a job says that it cannot run here, and why."""
    job.until(f"it says {reason}", lambda status: refused(status, reason), SOON)
    message = job.condition("Accepted")["message"]
    assert all(word in message for word in words), message


def refused(status: Status, reason: str) -> bool:
    """Whether a job says that it cannot run here, for this reason."""
    found = condition(status, "Accepted")
    return (found.get("status"), found.get("reason")) == ("False", reason)


def starts(status: Status) -> bool:
    """Whether machines were asked for."""
    accepted = condition(status, "Accepted").get("status") == "True"
    return accepted and status.get("phase") in ("Provisioning", "Running")
