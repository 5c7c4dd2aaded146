"""Judges a document by the API's schema, and says what is wrong in words."""

import difflib
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol

import jsonschema
from jsonschema.exceptions import ValidationError

from dreambooth.api.crd import Schema
from dreambooth.api.document import is_finite_number
from dreambooth.api.problems import FieldPath, Problem

# Longer values are cut in messages.
_SHOWN_CHARACTERS = 60

_TYPES = {
    "object": "a block of fields",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


class _Validator(Protocol):
    def iter_errors(self, instance: Any) -> Iterator[ValidationError]: ...


def schema_problems(document: Any, schema: Schema, path: FieldPath = ()) -> list[Problem]:
    """Everything in the document that the schema does not allow, in the order of the fields."""
    validator: _Validator = _validator_class()(schema)
    errors = [
        _problem(error, path)
        for error in validator.iter_errors(document)
        if not _is_told_by_enum(error)
    ]
    return list(dict.fromkeys(errors))


def _is_told_by_enum(error: ValidationError) -> bool:
    """A value of another type is none of the listed ones either, and those say more."""
    schema: Schema = error.schema  # type: ignore[assignment]
    return error.validator == "type" and "enum" in schema


@cache
def _validator_class() -> Any:
    """JSON schema as Kubernetes reads it.

    OpenAPI 3.0 is JSON schema draft 4 in `exclusiveMinimum`. Beyond that, Kubernetes refuses fields
    that the schema does not list; and patterns, which are all anchored, match as in RE2: only at
    the text's very end, where Python allows a line's end behind it, and classes are ASCII.
    """
    base = jsonschema.Draft4Validator
    checker = base.TYPE_CHECKER.redefine("number", lambda _, value: is_finite_number(value))
    keywords = {"pattern": _pattern, "required": _required, "properties": _properties}
    extend: Any = jsonschema.validators.extend
    return extend(base, keywords, type_checker=checker)


def _pattern(_: Any, pattern: str, value: Any, __: Schema) -> Iterator[ValidationError]:
    if isinstance(value, str) and not re.fullmatch(pattern, value, re.ASCII):
        yield ValidationError("pattern")


def _required(_: Any, names: list[str], value: Any, __: Schema) -> Iterator[ValidationError]:
    for name in names if isinstance(value, dict) else ():
        if name not in value:
            yield ValidationError("required", path=[name])


def _properties(
    validator: Any, properties: dict[str, Schema], value: Any, schema: Schema
) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    for name, field in value.items():
        if name in properties:
            yield from validator.descend(field, properties[name], path=name, schema_path=name)
        elif "additionalProperties" not in schema:
            yield ValidationError("unknown", path=[name])


def _problem(error: ValidationError, prefix: FieldPath) -> Problem:
    path = (*prefix, *error.absolute_path)
    schema: Schema = error.schema  # type: ignore[assignment]
    if error.message == "unknown":
        return Problem(path, "no such field", _nearest(str(path[-1]), schema), unlisted=True)
    if error.message == "required":
        wanted = schema["properties"][path[-1]]
        meaning = wanted.get("description") or f"Give {_allowed(wanted)}."
        return Problem(path, "is missing", meaning)
    found = f"found {_shown(error.instance)}"
    return Problem(path, found, _remedy(error, schema))


def _nearest(name: str, schema: Schema) -> str:
    known = list(schema["properties"])
    lowered = {field.lower(): field for field in known}
    near = difflib.get_close_matches(name.lower().replace("_", ""), lowered, n=1)
    if near:
        return f"Did you mean {lowered[near[0]]}?"
    return f"Known here: {', '.join(known)}."


def _remedy(error: ValidationError, schema: Schema) -> str:
    if error.validator == "enum":
        near = difflib.get_close_matches(str(error.instance).lower(), schema["enum"], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"Give {_allowed(schema)}.{hint}"
    if error.validator == "pattern":
        meaning = schema.get("description", "").partition(". ")[0].rstrip(".")
        hint = f"{meaning}. " if meaning else ""
        return f"{hint}It must match {schema['pattern']}"
    if error.validator == "type" and schema.get("type") == "string":
        quoted = isinstance(error.instance, bool | int | float)
        return f"Give {_allowed(schema)}{', in quotes' if quoted else ''}."
    return f"Give {_allowed(schema)}."


def _allowed(schema: Schema) -> str:
    """What the schema allows, as the end of a sentence that begins with "Give"."""
    if "enum" in schema:
        return (
            "one of " + ", ".join(schema["enum"])
            if len(schema["enum"]) > 1
            else (str(schema["enum"][0]))
        )
    kind = schema.get("type", "")
    what = _TYPES[kind]
    if kind == "object" and "properties" in schema:
        return f"{what}: {', '.join(schema['properties'])}"
    if kind == "array":
        entries = _range(schema.get("minItems"), schema.get("maxItems"))
        return f"{what}{entries} entries" if entries else what
    if kind == "string":
        size = _range(schema.get("minLength"), schema.get("maxLength"))
        return f"{what}{size} characters" if size else what
    if schema.get("exclusiveMinimum"):
        return f"{what} greater than {schema['minimum']}, at most {schema['maximum']}"
    return what + _range(schema.get("minimum"), schema.get("maximum"), " from")


def _range(low: Any, high: Any, word: str = " of") -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f"{word} {low} or more"
    return f"{word} {low or 0} to {high}"


def _shown(value: Any) -> str:
    """The value as it would stand in the manifest, cut when long."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return f"a block with {', '.join(map(str, value))}" if value else "an empty block"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}… ({len(str(value))} characters)"
