"""What people and machines do to a job, from its manifest to its rest."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from dreambooth_operator.kube.kinds import CLAIM, JOB, POD, Object, Ref, ref_of
from tests.simulation.machines import Life
from tests.simulation.world import PERSON, World
from tests.unit.api.rule_cases import a_manifest

JOB_REF = Ref(JOB, "default", "rex")
MID_TRAINING = 150


@dataclass(frozen=True)
class Scenario:
    """A story.

    Attributes:
        name: What happens, in words.
        people: What they do, as soon as it makes sense to them.
        lives: How the drivers of the tries fare.
        phase: Where the job ends; None where it is gone.
        tries: How many tries it takes.
    """

    name: str
    people: Callable[[World], Awaitable[None]]
    lives: tuple[Life, ...] = (Life(),)
    phase: str | None = "Succeeded"
    tries: int = 1

    def __str__(self) -> str:
        return self.name


def make_volume(world: World) -> None:
    """The team's shared volume."""
    claim = CLAIM.new(
        "default",
        "team",
        spec={"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Ti"}}},
        status={"phase": "Bound", "accessModes": ["ReadWriteMany"]},
    )
    world.server.apply(ref_of(claim), claim, PERSON)


def make_job(world: World, **changes: Any) -> Object:
    """The job, as `kubectl apply --server-side` makes it."""
    fields = {"metadata.namespace": "default", "spec.workspace": {"claimName": "team"}}
    job = a_manifest(**fields, **changes)
    return world.server.apply(ref_of(job), job, PERSON)


def is_training(world: World) -> bool:
    """Whether people see the job in the middle of its training."""
    status = world.status()
    return status.get("phase") == "Running" and progress(status) >= MID_TRAINING


def progress(status: Object) -> int:
    """The optimizer step that people see."""
    found: int = status.get("progress", {}).get("step", 0)
    return found


async def apply(world: World) -> None:
    """Someone applies a manifest and waits."""
    make_volume(world)
    make_job(world)


async def apply_with_ttl(world: World) -> None:
    """The job shall go by itself some time after its end."""
    make_volume(world)
    make_job(world, **{"spec.ttlSecondsAfterFinished": 30})


async def suspend_and_resume(world: World) -> None:
    """Someone needs the machines for a while."""
    await apply(world)
    await world.until(lambda: is_training(world))
    world.server.patch(JOB_REF, {"spec": {"suspend": True}}, PERSON)
    await world.until(lambda: world.status().get("phase") == "Suspended")
    await asyncio.sleep(20)
    world.server.patch(JOB_REF, {"spec": {"suspend": False}}, PERSON)


async def delete_mid_train(world: World) -> None:
    """Someone has second thoughts."""
    await apply(world)
    await world.until(lambda: is_training(world))
    world.server.delete(JOB_REF)


async def delete_and_make_again(world: World) -> None:
    """Someone corrects the manifest: `kubectl replace --force`."""
    await apply(world)
    await world.until(lambda: is_training(world))
    world.server.delete(JOB_REF)
    make_job(world)


async def lose_the_head(world: World) -> None:
    """The head's node goes away, and KubeRay does not notice."""
    await apply(world)
    await world.until(lambda: is_training(world))
    (head,) = world.server.find_all(POD, "default", {"ray.io/node-type": "head"})
    world.server.delete(ref_of(head))


SUCCESS = Scenario("apply until success", apply)
USER_FAILURE = Scenario("photos are missing", apply, (Life(20, "user"),), "Failed")
RETRY = Scenario("the volume is full once", apply, (Life(20, "infrastructure"), Life(20)), tries=2)
SUSPEND = Scenario("suspend and resume", suspend_and_resume, tries=2)
DELETE = Scenario("delete in mid-training", delete_mid_train, phase=None)
TTL = Scenario("gone some time after the end", apply_with_ttl, phase=None)
AGAIN = Scenario("delete and make again", delete_and_make_again, tries=2)
HEAD_LOST = Scenario("the head's node goes away", lose_the_head, tries=2)

SCENARIOS = (SUCCESS, USER_FAILURE, RETRY, SUSPEND, DELETE, AGAIN, TTL, HEAD_LOST)
