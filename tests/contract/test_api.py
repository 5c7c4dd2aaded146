"""The API itself, as a real API server judges it: every rule, every bad and every good manifest."""

from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.contract.control_plane import ControlPlane
from tests.unit.api.rule_cases import RULE_CASES, RuleCase, a_manifest

REPOSITORY = Path(__file__).parents[2]
BAD = sorted((REPOSITORY / "tests" / "contract" / "bad").glob("*.yaml"))
EXAMPLES = sorted((REPOSITORY / "examples").rglob("*.yaml"))
JOBS = "/apis/dreambooth.dev/v1alpha1/namespaces/default/dreamboothjobs"


@pytest.fixture(scope="module", autouse=True)
def default_namespace(plane: ControlPlane) -> None:
    plane.make_namespace("default")


def judged(plane: ControlPlane, manifest: dict[str, Any]) -> requests.Response:
    """What `kubectl create --dry-run=server` says."""
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    return plane.request("POST", JOBS, manifest, **query)


def changed(
    plane: ControlPlane, before: dict[str, Any], after: dict[str, Any]
) -> requests.Response:
    """What is said about a job that is there and shall become another."""
    path = f"{JOBS}/{before['metadata']['name']}"
    made = plane.request("POST", JOBS, before)
    made.raise_for_status()
    try:
        new = after | {"metadata": made.json()["metadata"]}
        return plane.request("PUT", path, new, dryRun="All")
    finally:
        plane.request("DELETE", path)


def said(plane: ControlPlane, case: RuleCase, changes: dict[str, Any]) -> requests.Response:
    if case.before:
        return changed(plane, a_manifest(**case.before), a_manifest(**changes))
    return judged(plane, a_manifest(**changes))


def sides(side: str) -> list[Any]:
    return [
        pytest.param(case, changes, id=f"{case.at or 'job'}: {case.message} ({number})")
        for case in RULE_CASES
        for number, changes in enumerate(getattr(case, side), start=1)
    ]


@pytest.mark.parametrize(("case", "changes"), sides("keeps"))
def test_a_job_that_keeps_the_rule_is_accepted(
    plane: ControlPlane, case: RuleCase, changes: dict[str, Any]
) -> None:
    answer = said(plane, case, changes)
    assert answer.ok, answer.text


@pytest.mark.parametrize(("case", "changes"), sides("breaks"))
def test_a_job_that_breaks_the_rule_is_refused_with_its_message(
    plane: ControlPlane, case: RuleCase, changes: dict[str, Any]
) -> None:
    answer = said(plane, case, changes)
    assert answer.status_code == 422
    assert case.message in answer.json()["message"]


def expectations(file: Path) -> list[str]:
    """The words that a refusal has to have, from the file's comments.

    Those behind `says` are the command's own: the API server has others for what a schema refuses.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("# expect: ") for line in lines if line.startswith("# expect: ")]


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_bad_manifest_is_refused_with_the_field_that_is_wrong(
    plane: ControlPlane, file: Path
) -> None:
    answer = judged(plane, yaml.safe_load(file.read_text(encoding="utf-8")))
    assert answer.status_code in (400, 422), answer.text
    words = expectations(file)
    assert words, f"{file} does not say what is expected"
    for word in words:
        assert word in answer.json()["message"]


def documents() -> list[Any]:
    """Every example that is a Kubernetes object, each document of it."""
    return [
        pytest.param(document, id=f"{file.relative_to(REPOSITORY)}")
        for file in EXAMPLES
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
        if document and document.get("kind") == "DreamBoothJob"
    ]


@pytest.mark.parametrize("document", documents())
def test_every_example_is_accepted(plane: ControlPlane, document: dict[str, Any]) -> None:
    answer = judged(plane, document)
    assert answer.ok, answer.text
