"""The rules of the API: each is kept by a job, broken by another, and says what to do."""

from collections.abc import Iterator
from typing import Any

import pytest

from dreambooth.api.cel import Rule, rules_of
from dreambooth.api.crd import Schema, job_schema, with_defaults
from dreambooth.api.manifest import find_problems, update_problems
from tests.unit.api.rule_cases import RULE_CASES, RuleCase, a_manifest


def all_rules(schema: Schema, at: str = "") -> Iterator[tuple[str, Rule]]:
    for rule in rules_of(schema):
        yield at, rule
    for name, field in schema.get("properties", {}).items():
        yield from all_rules(field, f"{at}.{name}" if at else name)
    if "items" in schema:
        yield from all_rules(schema["items"], f"{at}[]")


RULES = list(all_rules(job_schema()))


def is_meant(case: RuleCase, at: str, rule: Rule) -> bool:
    return case.at == at and case.message in rule.message


def rule_of(case: RuleCase) -> Rule:
    (found,) = [rule for at, rule in RULES if is_meant(case, at, rule)]
    return found


def messages(case: RuleCase, changes: dict[str, Any]) -> list[str]:
    """What is refused about the job of the case, or about the change to it."""
    new = a_manifest(**changes)
    if case.before:
        problems = update_problems(a_manifest(**case.before), new)
    else:
        problems = find_problems(with_defaults(new, job_schema()))
    return [problem.remedy for problem in problems]


def named(side: str) -> list[Any]:
    return [
        pytest.param(case, changes, id=f"{case.at or 'job'}: {case.message} ({number})")
        for case in RULE_CASES
        for number, changes in enumerate(getattr(case, side), start=1)
    ]


@pytest.mark.parametrize(("case", "changes"), named("keeps"))
def test_a_job_that_keeps_the_rule_has_no_problem(case: RuleCase, changes: dict[str, Any]) -> None:
    assert messages(case, changes) == []


@pytest.mark.parametrize(("case", "changes"), named("breaks"))
def test_a_job_that_breaks_the_rule_is_told_so(case: RuleCase, changes: dict[str, Any]) -> None:
    assert rule_of(case).message in messages(case, changes)


@pytest.mark.parametrize(
    ("at", "rule"), [pytest.param(at, rule, id=f"{at}: {rule.message}") for at, rule in RULES]
)
def test_every_rule_has_one_case(at: str, rule: Rule) -> None:
    assert len([case for case in RULE_CASES if is_meant(case, at, rule)]) == 1


def test_rules_about_a_change_are_only_asked_about_changes() -> None:
    transitions = [rule for _, rule in RULES if rule.is_transition]
    assert len(transitions) == len([case for case in RULE_CASES if case.before])
    assert find_problems(with_defaults(a_manifest(), job_schema())) == []


@pytest.mark.parametrize(
    "change",
    [
        {"spec.suspend": True},
        {"spec.queueName": "team-a"},
        {"spec.limits": {"gpuHours": 0.5}},
        {"spec.ttlSecondsAfterFinished": 60},
        {"spec.training": {"seed": 0}},
    ],
)
def test_what_may_change_may_change(change: dict[str, Any]) -> None:
    assert update_problems(a_manifest(), a_manifest(**change)) == []


def test_a_rule_that_looks_at_a_refused_field_keeps_quiet() -> None:
    manifest = a_manifest(**{"spec.training": {"steps": "many", "checkpointEvery": 5}})
    (problem,) = find_problems(with_defaults(manifest, job_schema()))
    assert problem.field == "spec.training.steps"


def test_a_rule_that_looks_elsewhere_does_not_keep_quiet() -> None:
    manifest = a_manifest(
        **{"spec.training": {"steps": "many", "batchSize": 3}, "spec.cluster.workers": 2}
    )
    fields = {p.field for p in find_problems(with_defaults(manifest, job_schema()))}
    assert fields == {"spec.training.steps", "spec.training.batchSize"}
