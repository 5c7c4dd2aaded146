"""One life of a job from beginning to rest, and what is compared of two such lives."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from dreambooth_operator.kube.kinds import EVENT, KINDS, POD, Object
from tests.simulation.fake_api import Call
from tests.simulation.faults import Fault, FaultyLine
from tests.simulation.judgement import RAY_CLUSTER
from tests.simulation.scenarios import Scenario
from tests.simulation.world import World, a_world

# Two lives differ in when things happened, and in what is counted by time.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_FIGURES = frozenset(
    ("uid", "resourceVersion", "generation", "gpuSeconds", "amount", "gpuTime", "resumedFromStep")
)
# Of a RayJob: what earlier tries have used.
_USED = "DREAMBOOTH_GPU_SECONDS_USED"
# A job whose child is refused says so, until the child is accepted.
_REFUSED = "ChildRefused"
EVERYTHING = frozenset(kind.name for kind in (*KINDS.values(), RAY_CLUSTER))
# What costs something. Other children may be made again while their job goes away: what was
# observed of it may be a moment old, and their owner's absence takes them away.
COSTLY = frozenset((RAY_CLUSTER.name, POD.name))
# For one more look at a job at rest.
LOOK_SECONDS = 20
# A fault may cost a repetition of what was under way, and the word that it went wrong.
MORE_WRITES = 12


@dataclass(frozen=True)
class Outcome:
    """What a life of a job left behind.

    Attributes:
        phase: The job's; None if it is gone.
        objects: All objects but events, without what differs from life to life, by name.
        made: How often each was made.
        submissions: How often the driver of each RayJob was submitted.
        reasons: Reasons of all events.
        writes: The operator's calls that can change anything, in order.
        reads: How many other calls there were.
        orphans: Objects whose owner is gone.
        restless: What was written when the job at rest was looked at once more.
    """

    phase: str | None
    objects: dict[str, Any]
    made: dict[tuple[str, str], int]
    submissions: dict[str, int]
    reasons: frozenset[str]
    writes: tuple[str, ...]
    reads: int
    orphans: tuple[str, ...]
    restless: tuple[str, ...]


def live(scenario: Scenario, line: FaultyLine, prepare: Callable[[World], None]) -> Outcome:
    """Play a scenario to its rest.

    Args:
        scenario: The story.
        line: Between the first operator and the API.
        prepare: Whatever else is special about the world.
    """
    with a_world(*scenario.lives) as (loop, world):
        prepare(world)
        world.start_operator(line)
        loop.run_until_complete(scenario.people(world))
        loop.run_until_complete(world.until_rest())
        seen = {id(each): len(each.line.calls) for each in world.operators}
        calls = list(chain(*(each.line.calls for each in world.operators)))
        for operator in world.operators:
            operator.queue.add("default/rex")
        loop.run_until_complete(world.until_rest(LOOK_SECONDS))
        # There may be an operator more by now, which looked at the job when it started.
        again = list(chain(*(each.line.calls[seen.get(id(each), 0) :] for each in world.operators)))
        return _outcome(world, calls, again)


@cache
def undisturbed(scenario: Scenario) -> Outcome:
    """What the scenario leaves when nothing goes wrong."""
    return live(scenario, FaultyLine(), lambda world: None)


def disturbed(scenario: Scenario, fault: Fault, at: int, *, reads: bool = False) -> list[str]:
    """What is wrong after a life in which one call went wrong, in words.

    Args:
        scenario: The story.
        fault: What goes wrong.
        at: With which write it does, or read.
        reads: Whether reads are counted instead.
    """
    line = FaultyLine(fault, at, (lambda call: not call.is_write) if reads else _is_write)
    try:
        found = live(scenario, line, lambda world: None)
    except AssertionError as error:
        return [str(error)]
    return differences(undisturbed(scenario), found)


def differences(
    expected: Outcome, found: Outcome, *, times: int = 1, once: frozenset[str] = EVERYTHING
) -> list[str]:
    """Where a life that was disturbed differs from one that was not, in words.

    Args:
        expected: What is left when nothing goes wrong.
        found: What was left.
        times: How many times as many writes as then are all right.
        once: Kinds that must not be made more often than then.
    """
    wrong = []
    if found.phase != expected.phase:
        wrong.append(f"phase is {found.phase}, not {expected.phase}")
    for name in sorted(expected.objects.keys() | found.objects.keys()):
        before, after = expected.objects.get(name), found.objects.get(name)
        if before != after:
            wrong.append(f"{name}: {_difference(before, after, '')}")
    made = {key: count for key, count in found.made.items() if key[0] in once}
    wanted = {key: count for key, count in expected.made.items() if key[0] in once}
    if made != wanted:
        wrong.append(f"made {sorted(made.items() - wanted.items())}")
    if found.submissions != expected.submissions:
        wrong.append(f"submitted {found.submissions}, not {expected.submissions}")
    if more := found.reasons - expected.reasons - {_REFUSED}:
        wrong.append(f"told of {sorted(more)}")
    if len(found.writes) > times * len(expected.writes) + MORE_WRITES:
        wrong.append(f"{len(found.writes)} writes instead of {len(expected.writes)}")
    wrong += [f"{name} has lost its owner" for name in found.orphans]
    wrong += [f"at rest: {call}" for call in found.restless]
    return wrong


def _is_write(call: Call) -> bool:
    return call.is_write


def _outcome(world: World, calls: list[Call], again: list[Call]) -> Outcome:
    objects = [
        obj
        for ref in world.server.refs()
        if ref.kind != EVENT and (obj := world.server.find(ref)) is not None
    ]
    uids = {obj["metadata"]["uid"] for obj in objects}
    job = world.job()
    return Outcome(
        phase=job.get("status", {}).get("phase") if job else None,
        objects={_name(obj): _masked(obj) for obj in objects},
        made={key: count for key, count in world.server.made.items() if key[0] != EVENT.name},
        submissions=dict(world.kuberay.submissions),
        reasons=frozenset(event["reason"] for event in world.server.find_all(EVENT)),
        writes=tuple(str(call) for call in calls if call.is_write),
        reads=len([call for call in calls if not call.is_write]),
        orphans=tuple(_name(obj) for obj in objects if _is_orphan(obj, uids)),
        restless=tuple(str(call) for call in again if call.is_write),
    )


def _name(obj: Object) -> str:
    return f"{obj['kind']} {obj['metadata']['name']}"


def _is_orphan(obj: Object, uids: set[str]) -> bool:
    """Whether the owner of an object is gone; a pod always has one."""
    owners = obj["metadata"].get("ownerReferences", [])
    return (obj["kind"] == POD.name and not owners) or any(
        owner["uid"] not in uids for owner in owners
    )


def _masked(value: Any, name: str = "") -> Any:
    """The value without what differs from life to life."""
    if name in _FIGURES:
        return "…"
    if isinstance(value, dict):
        if value.get("name") == _USED:
            return {"name": _USED, "value": "…"}
        return {key: _masked(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    if isinstance(value, str):
        text = _json_masked(value) if value.startswith("{") else value
        return _TIME.sub("…", text)
    return value


def _json_masked(text: str) -> str:
    """The same for JSON inside of a text, such as the progress record."""
    return json.dumps(_masked(json.loads(text)), sort_keys=True)


def _difference(before: Any, after: Any, at: str) -> str:
    """The first place where two values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                return _difference(before.get(name), after.get(name), f"{at}.{name}")
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            if one != other:
                return _difference(one, other, f"{at}[{place}]")
    return f"{at} is {after!r}, not {before!r}"
