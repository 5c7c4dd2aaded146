"""A job that is killed, whoever dies and whenever, ends as one that was not.

The undisturbed job is run in this process without Ray; the killed ones are the real command with
Ray, so that they also show that Ray changes nothing about the outcome.
"""

import random
from collections import Counter
from pathlib import Path

import pytest

from dreambooth.pipeline.driver import run_job
from tests.jobs import a_job, lay_out
from tests.unit.crash.harness import CHANGES, Kill, Outcome, Played, Victim, play
from tests.without_ray import without_ray

# For each stage, how far it counts and the seconds within which it goes on after a report.
REACH = {
    "photos": (3, 0.1),
    "classImages": (10, 2.0),
    "train": (12, 3.0),
    "generate": (2, 1.0),
    "evaluate": (10, 2.0),
}
CHAINS = 6


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Outcome:
    """What the job ends with when nothing happens to it."""
    workspace = lay_out(tmp_path_factory.mktemp("undisturbed") / "workspace", tiny_model)
    with without_ray():
        run_job(a_job(workspace, CHANGES), workspace, [])
    return Outcome.of(workspace)


def chain(seed: int) -> list[Kill]:
    """One kill in each stage at a random moment; victims take turns over chains and stages."""
    chance = random.Random(seed)
    victims = list(Victim)
    kills = []
    for number, (stage, (items, seconds)) in enumerate(REACH.items()):
        # Before the first worker there is only the driver.
        victim = victims[(seed + number) % 3] if stage != "photos" else victims[seed % 2 * 2]
        kills.append(Kill(victim, stage, chance.randrange(items), chance.uniform(0, seconds)))
    # Photos take a moment: one chain in three is killed there.
    return kills if seed % 3 == 0 else kills[1:]


def show(played: Played) -> None:
    """The table of cases, for whoever reads the log."""
    for kill, place, code in played.struck:
        wanted = f"{kill.stage} at {kill.done} + {kill.delay:.2f} s"
        print(f"{kill.victim.value:13}| {wanted:26}| struck at {place:18}| exit {code}")
    print(f"{'':13}| {played.commands} commands; finished once each: {', '.join(played.finished)}")


def assert_ends_alike(workspace: Path, kills: list[Kill], undisturbed: Outcome) -> None:
    played = play(workspace, kills)
    show(played)
    assert [kill for kill, _, _ in played.struck] == kills
    repeated = {stage: times for stage, times in Counter(played.finished).items() if times > 1}
    assert repeated == {}
    assert Outcome.of(workspace) == undisturbed


@pytest.mark.crash
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("seed", range(CHAINS))
def test_a_job_killed_in_every_stage_ends_as_one_that_was_not(
    tmp_path: Path, tiny_model: Path, undisturbed: Outcome, seed: int
) -> None:
    assert_ends_alike(lay_out(tmp_path / "workspace", tiny_model), chain(seed), undisturbed)


def test_the_chains_kill_each_kind_of_process_often_enough() -> None:
    kills = [kill for seed in range(CHAINS) for kill in chain(seed)]
    assert len(kills) >= 20
    assert {kill.stage for kill in kills} == set(REACH)
    assert min(Counter(kill.victim for kill in kills).values()) >= 6


@pytest.mark.crash
@pytest.mark.timeout(1200)
def test_a_worker_the_whole_tree_and_the_driver_can_die_and_the_outcome_is_the_same(
    tmp_path: Path, tiny_model: Path, undisturbed: Outcome
) -> None:
    # The shortest chain with all kinds of victims: CI runs it alone.
    kills = [
        Kill(Victim.WORKER, "classImages", 0, 1.0),
        Kill(Victim.TREE, "train", 4, 0.2),
        Kill(Victim.DRIVER, "generate", 1, 0.0),
    ]
    assert_ends_alike(lay_out(tmp_path / "workspace", tiny_model), kills, undisturbed)
