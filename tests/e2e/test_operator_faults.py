"""What jobs go through on a real cluster, several faults on one job: nothing is lost."""

import json
from typing import Any

import pytest

from tests.e2e.dreambooth import CHILDREN, JobUnderTest, a_job, stage
from tests.e2e.kube import Cluster, eventually, tool
from tests.e2e.team import LONG, SOON, Team, machines

STEPS = 200


@pytest.fixture(scope="module")
def first(team: Team) -> JobUnderTest:
    """A job of one worker that has succeeded; others share its volume and its class images."""
    job = team.submit(a_job("first", team.claim, cluster={"workers": 1}))
    job.succeeds(LONG)
    return job


@pytest.mark.timeout(3000)
def test_a_job_outlives_the_loss_of_its_head_a_suspension_and_the_loss_of_a_node(
    team: Team, first: JobUnderTest, cluster: Cluster
) -> None:
    job = team.submit(a_job("tried", team.claim, steps=STEPS, retries=5))
    status = job.trains_beyond(8, LONG)
    assert stage(status, "classImages")["cached"], "the class images of the first job are there"

    (head,) = job.pods("head")
    team.kubectl("delete", "pod", head["metadata"]["name"])
    status = goes_on(job, attempt=2)
    lost = status["attempts"][0]
    assert (lost["failure"], lost["reason"]) == ("infrastructure", "Interrupted")

    job.plugin("cancel")
    job.until("it is suspended", lambda status: status["phase"] == "Suspended", SOON)
    eventually("its machines are given back", lambda: not machines(job), SOON)
    assert not team.kubectl.list("rayjobs", "-l", job.selector)
    job.plugin("resume")
    status = goes_on(job, attempt=3)
    assert "failure" not in status["attempts"][1]

    if cluster.local:
        lose_node(job, cluster)
    status = job.succeeds(LONG)
    reached = [attempt.get("resumedFromStep", 0) for attempt in status["attempts"]]
    assert reached == sorted(reached), "no try had to begin before where the last one began"
    assert status["gpuSeconds"] == pytest.approx(
        sum(attempt["gpuSeconds"] for attempt in status["attempts"]), abs=0.5
    )


def goes_on(job: JobUnderTest, attempt: int) -> dict[str, Any]:
    """Wait until a try trains that went on from a checkpoint of the one before."""
    status = job.until(
        f"try {attempt} goes on from a checkpoint",
        lambda status: (
            status.get("attempt", 0) >= attempt
            and status["attempts"][-1].get("resumedFromStep", 0) > 0
        ),
        LONG,
    )
    assert status["attempt"] == attempt, json.dumps(status["attempts"], indent=1)
    step = status["attempts"][-1]["resumedFromStep"]
    return job.trains_beyond(step, LONG)


def lose_node(job: JobUnderTest, cluster: Cluster) -> None:
    """Take the power from the GPU node, and bring it back when the cluster has noticed."""
    tool("node", "stop", "gpu-0")
    try:
        cluster.kubectl.wait("--for=condition=Ready=Unknown", "node/gpu-0", seconds=SOON)
    finally:
        tool("node", "start", "gpu-0")
    cluster.kubectl.wait("--for=condition=Ready", "node/gpu-0", seconds=SOON)
    step = job.status["progress"]["step"]
    job.until(
        "it trains again or is done",
        lambda status: (
            status.get("phase") == "Succeeded" or status.get("progress", {}).get("step", 0) > step
        ),
        LONG,
    )


@pytest.mark.timeout(1800)
def test_a_job_deleted_while_it_trains_leaves_nothing_and_touches_nothing(
    team: Team, first: JobUnderTest
) -> None:
    listing = "find cache jobs/first-* -type f ! -path '*/doomed-*' -exec sha256sum {} + | sort"
    before = team.on_volume(listing)
    assert "cache/class-images/" in before and "jobs/first-" in before
    job = team.submit(a_job("doomed", team.claim, steps=STEPS))
    job.trains_beyond(4, LONG)
    selector = job.selector
    team.kubectl("delete", "dreamboothjob", job.name, "--wait=false")
    eventually(
        "all that belonged to it is gone",
        lambda: (
            not team.kubectl.get("dreamboothjob", job.name)
            and not team.kubectl.list(CHILDREN, "-l", selector)
        ),
        SOON,
    )
    assert team.on_volume(listing) == before
    assert first.status["phase"] == "Succeeded"
