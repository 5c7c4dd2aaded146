"""The reference of the manifest, in Markdown, made from the API's definition."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]

_EXAMPLE = Path(__file__).with_name("example.yaml")

_INTRODUCTION = """\
<!-- Made by `make generate` from crds/dreamboothjobs.yaml. Edit that file. -->
# The manifest

A `{kind}` says what to learn and what to draw. The same file goes to `dreambooth run` on one
machine and to `kubectl apply` on a cluster, is judged by the same schema and the same rules in both
places, and an unknown field is refused in both. On a cluster `kubectl explain {short}.spec` shows
this reference, too.

```yaml
{example}```

A field with a value under *Default* can be left out. Where none is shown the field is optional,
unless it says **required**, and its description says what happens without it. *Fixed* objects
cannot be changed once the job exists; make a new job instead.
"""


def manifest_reference(crd_text: str) -> str:
    """Every field of the API with type, bounds, default, meaning and rules."""
    definition = yaml.safe_load(crd_text)
    names = definition["spec"]["names"]
    version = definition["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    parts = [
        _INTRODUCTION.format(
            kind=names["kind"],
            short=names["shortNames"][0],
            example=_EXAMPLE.read_text(encoding="utf-8"),
        ),
        "## Name\n\n`metadata.name`: " + " ".join(_messages(schema)) + "\n",
        *_sections("spec", schema["properties"]["spec"]),
        *_sections("status", schema["properties"]["status"]),
        _columns(version["additionalPrinterColumns"], names["shortNames"][0]),
    ]
    return "\n".join(parts)


def _sections(path: str, schema: Schema) -> Iterator[str]:
    """The section of an object, then those of the objects in it."""
    level = "#" * (2 if "." not in path else 3)
    lines = [f"{level} {path}", "", schema.get("description", "")]
    if _is_fixed(schema):
        lines[-1] += " *Fixed.*"
    if schema.get("default"):
        lines[-1] += f" Default: {_code(schema['default'])}."
    lines += ["", "| Field | Type | Default | Meaning |", "|---|---|---|---|"]
    required = schema.get("required", [])
    for name, field in schema["properties"].items():
        lines.append(_row(path, name, field, name in required))
    rules = [*_messages(schema), *_rules_of_fields(schema)]
    if rules:
        lines += ["", "Rules:", "", *(f"- {rule}" for rule in rules)]
    yield "\n".join(lines) + "\n"
    for name, field in schema["properties"].items():
        if "properties" in field:
            yield from _sections(f"{path}.{name}", field)
        elif "properties" in field.get("items", {}):
            yield from _sections(f"{path}.{name}[]", _entry(field))


def _entry(field: Schema) -> Schema:
    keys = field.get("x-kubernetes-list-map-keys", [])
    described = " ".join(f"One entry a {key}." for key in keys)
    return {**field["items"], "description": described}


def _row(path: str, name: str, field: Schema, required: bool) -> str:
    default = _code(field["default"]) if field.get("default") not in (None, {}) else ""
    meaning = field["description"]
    if "properties" in field or "properties" in field.get("items", {}):
        suffix = "[]" if "items" in field else ""
        heading = f"{path}.{name}{suffix}"
        meaning = f"{_first_sentence(meaning)} See [{heading}](#{_anchor(heading)})."
    elif _is_fixed(field):
        meaning += " *Fixed.*"
    shown = f"`{name}`" + (" **required**" if required else "")
    return f"| {shown} | {_type(field)} | {default} | {_cell(meaning)} |"


def _type(field: Schema) -> str:
    """Type and bounds, in words."""
    kind: str = field["type"]
    if kind == "array":
        entry = field["items"]
        entries = "objects" if "properties" in entry else f"{_type(entry)} each"
        return f"list{_range(field.get('minItems'), field.get('maxItems'))} of {entries}"
    if "enum" in field:
        return " · ".join(f"`{value}`" for value in field["enum"])
    if kind == "string":
        if field.get("format") == "date-time":
            return "time"
        size = _range(field.get("minLength"), field.get("maxLength"))
        pattern = f", matches {_cell(_code_text(field['pattern']))}" if "pattern" in field else ""
        return f"text{size} characters{pattern}" if size else f"text{pattern}"
    if field.get("exclusiveMinimum"):
        return f"{kind} > {field['minimum']}, ≤ {field['maximum']}"
    return kind + _range(field.get("minimum"), field.get("maximum"))


def _range(low: Any, high: Any) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f" ≥ {low}"
    return f" {low}–{high}" if low is not None else f" up to {high}"


def _messages(schema: Schema) -> list[str]:
    """What the rules of an object ask for; that it is fixed is said elsewhere."""
    return [
        " ".join(rule["message"].split())
        for rule in schema.get("x-kubernetes-validations", ())
        if rule["rule"] != "self == oldSelf"
    ]


def _rules_of_fields(schema: Schema) -> Iterator[str]:
    for name, field in schema["properties"].items():
        if "properties" in field or "properties" in field.get("items", {}):
            continue
        for message in _messages(field) + _messages(field.get("items", {})):
            yield f"`{name}`: {message}"


def _is_fixed(schema: Schema) -> bool:
    rules = schema.get("x-kubernetes-validations", ())
    return any(rule["rule"] == "self == oldSelf" for rule in rules)


def _columns(columns: list[dict[str, Any]], short: str) -> str:
    lines = [
        f"## Columns of `kubectl get {short}`",
        "",
        "| Column | Field | Meaning |",
        "|---|---|---|",
    ]
    for column in columns:
        wide = " (`-o wide`)" if column.get("priority") else ""
        path, meaning = column["jsonPath"].lstrip("."), column["description"]
        lines.append(f"| {column['name']}{wide} | `{path}` | {_cell(meaning)} |")
    return "\n".join(lines) + "\n"


def _code(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _cell(_code_text(text))


def _code_text(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    """Text that does not end its cell of a table."""
    return text.replace("|", "\\|")


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.:])\s", text, maxsplit=1)[0].rstrip(".:") + "."


def _anchor(heading: str) -> str:
    """The name that GitHub gives the heading."""
    return "".join(c for c in heading.lower() if c.isalnum() or c in "-_")
