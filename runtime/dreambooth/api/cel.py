"""Evaluates the rules that the API's schema carries as `x-kubernetes-validations`.

They are written in CEL, the Common Expression Language. Values get CEL types by the schema, as in
the API server: a `number` is a double even where the manifest says 7.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from dreambooth.api.crd import Schema
from dreambooth.api.problems import FieldPath, Problem

_RULES = "x-kubernetes-validations"
_LARGEST_INTEGER = 2**63 - 1
_REFERENCE = re.compile(r"\bself((?:\.[A-Za-z_]\w*)*)(\()?")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        expression: The CEL expression; it holds when it gives true.
        message: What to do when it does not hold.
        field: The field that it is reported for, below the one that it stands at.
    """

    expression: str
    message: str
    field: FieldPath = ()

    @property
    def is_transition(self) -> bool:
        """Whether it compares with the object before; only the API server has that."""
        return "oldSelf" in self.expression

    @property
    def references(self) -> frozenset[FieldPath]:
        """The fields it looks at, as paths below its own."""
        found = set()
        for match in _REFERENCE.finditer(self.expression):
            names = match.group(1).split(".")[1:]
            # What is called is a method, such as self.prompt.contains(…).
            found.add(tuple(names[:-1] if match.group(2) else names))
        return frozenset(found)


def rules_of(schema: Schema) -> list[Rule]:
    """The rules that stand at this very place of the schema."""
    return [
        Rule(
            rule["rule"],
            " ".join(rule["message"].split()),
            tuple(rule.get("fieldPath", "").split(".")[1:]),
        )
        for rule in schema.get(_RULES, ())
    ]


def rule_problems(
    document: Any, schema: Schema, known: Sequence[Problem] = (), *, old: Any = None
) -> list[Problem]:
    """What breaks a rule.

    Args:
        document: The document, with defaults.
        schema: Its schema.
        known: What the schema itself refuses. A rule that looks at such a field is not asked: its
            answer would only repeat in other words what is known.
        old: The document before; without it transition rules are not asked.
    """
    return list(_walk(document, schema, (), old, known))


def _walk(
    value: Any, schema: Schema, path: FieldPath, old: Any, known: Sequence[Problem]
) -> Iterator[Problem]:
    for rule in rules_of(schema):
        if rule.is_transition and old is None:
            continue
        if any(_depends_on(rule, path, problem) for problem in known):
            continue
        if not _holds(rule.expression, value, old, schema):
            yield Problem((*path, *rule.field), None, rule.message)
    if isinstance(value, dict):
        for name, field in schema.get("properties", {}).items():
            if name in value:
                before = old.get(name) if isinstance(old, dict) else None
                yield from _walk(value[name], field, (*path, name), before, known)
    elif isinstance(value, list):
        # Entries of a list have no counterpart in the document before.
        for index, item in enumerate(value):
            yield from _walk(item, schema.get("items", {}), (*path, index), None, known)


def _depends_on(rule: Rule, path: FieldPath, problem: Problem) -> bool:
    """Whether the rule, standing at `path`, looks at the field that the problem is about."""
    if problem.unlisted:
        # A misspelt field: what is missing beside it is likely this very one.
        return path == problem.path[:-1]
    for reference in rule.references:
        looked_at = (*path, *reference)
        shared = min(len(looked_at), len(problem.path))
        if looked_at[:shared] == problem.path[:shared]:
            return True
    return False


def _holds(expression: str, value: Any, old: Any, schema: Schema) -> bool:
    bindings = {"self": _to_cel(value, schema)}
    if old is not None:
        bindings["oldSelf"] = _to_cel(old, schema)
    return bool(_program(expression).evaluate(bindings))


@cache
def _environment() -> Any:
    import celpy

    return celpy.Environment(runner_class=celpy.InterpretedRunner)


@cache
def _program(expression: str) -> Any:
    environment = _environment()
    return environment.program(environment.compile(expression))


def _to_cel(value: Any, schema: Schema) -> Any:
    """The value in CEL's types; of an object the fields that the schema lists, as in the server."""
    from celpy import celtypes

    if isinstance(value, dict):
        return celtypes.MapType(
            {
                celtypes.StringType(name): _to_cel(value[name], field)
                for name, field in schema.get("properties", {}).items()
                if name in value
            }
        )
    if isinstance(value, list):
        items = schema.get("items", {})
        return celtypes.ListType([_to_cel(item, items) for item in value])
    if isinstance(value, bool):
        return celtypes.BoolType(value)
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        # Beyond every bound of the schema: refused there, and no rule that looks at it is asked.
        return None
    if isinstance(value, float) or (isinstance(value, int) and schema.get("type") == "number"):
        return celtypes.DoubleType(value)
    if isinstance(value, int):
        return celtypes.IntType(value)
    return celtypes.StringType(value)
