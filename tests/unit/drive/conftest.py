"""Jobs, times, and the API's own schema of what a record may say."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dreambooth.api import crd
from dreambooth.api.job import Job
from dreambooth.api.manifest import parse_job
from dreambooth.models.defaults import resolve_settings

BEGIN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

# Where the parts of a record have their schema in the API's status.
MOMENT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"
PARTS = ("stage", "stages", "progress", "quality", "outputs", "resolved")


def at(seconds: float) -> datetime:
    """So long after the try began."""
    return BEGIN + timedelta(seconds=seconds)


def a_job(**spec: Any) -> Job:
    """A small job of the built-in model, its settings resolved."""
    document = {
        "apiVersion": crd.api_version(),
        "kind": crd.kind(),
        "metadata": {"name": "rex", "namespace": "team", "uid": "0a1b"},
        "spec": {"subject": {"class": "dog", "photos": {"path": "photos"}}, **spec},
    }
    return resolve_settings(parse_job(document, "job.json", Path()))


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as the API server prunes by it: a field it does not name is an error here."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: _closed(part) for name, part in schema["properties"].items()}
        result["additionalProperties"] = False
    if "items" in schema:
        result["items"] = _closed(schema["items"])
    return result


@pytest.fixture(scope="session")
def assert_valid() -> Callable[[dict[str, Any]], None]:
    """Checks a record part by part against the API's status, which the operator copies it to."""
    status = crd.job_schema()["properties"]["status"]["properties"]
    attempt = status["attempts"]["items"]["properties"]
    text, moment = {"type": "string", "maxLength": 1024}, {"type": "string", "pattern": MOMENT}
    states = {"enum": ["Running", "Succeeded", "Failed", "Interrupted"]}
    failure = {
        "class": attempt["failure"],
        "reason": attempt["reason"],
        "message": attempt["message"],
        "field": text,
    }
    schema = _closed(
        {
            "type": "object",
            "required": ["version", "attempt", "state", "startTime", "updateTime", "gpuSeconds"],
            "properties": {
                **{part: status[part] for part in PARTS},
                "version": {"const": 1},
                "attempt": attempt["number"],
                "state": states,
                "startTime": moment,
                "updateTime": moment,
                "gpuSeconds": attempt["gpuSeconds"],
                "resumedFromStep": attempt["resumedFromStep"],
                "warnings": {"type": "array", "items": text},
                "failure": {
                    "type": "object",
                    "required": ["class", "reason", "message"],
                    "properties": failure,
                },
            },
        }
    )
    validator = jsonschema.Draft202012Validator(schema)

    def check(record: dict[str, Any]) -> None:
        validator.validate(record)

    return check
