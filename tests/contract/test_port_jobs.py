"""What the operator relies on where DreamBoothJobs and their status are concerned."""

import pytest

from dreambooth_operator.kube.errors import Conflict, Invalid, NotFound
from dreambooth_operator.kube.kinds import Object, ref_of
from dreambooth_operator.kube.port import Event
from tests.contract.builders import (
    OTHER_UID,
    a_condition,
    a_job,
    a_status,
    version,
)
from tests.contract.conftest import Side


def test_a_job_is_stored_with_its_defaults(side: Side, namespace: str) -> None:
    job = side.hands.apply(a_job(namespace))
    assert job["spec"]["retries"] == 3
    assert job["spec"]["cluster"] == {"workers": 1}
    assert side.ask(side.api.get(ref_of(job)))["spec"] == job["spec"]


def test_a_job_that_breaks_a_rule_is_invalid(side: Side, namespace: str) -> None:
    with pytest.raises(Invalid, match="Give each prompt once"):
        prompts = ["a {token} {class}"] * 2
        side.hands.apply(a_job(namespace, **{"spec.generation.prompts": prompts}))


def test_what_cannot_be_changed_of_a_job_is_invalid(side: Side, namespace: str) -> None:
    side.hands.apply(a_job(namespace))
    with pytest.raises(Invalid, match="retries cannot be changed"):
        side.hands.apply(a_job(namespace, **{"spec.retries": 7}))


def test_a_generation_counts_changes_of_what_is_wanted(side: Side, namespace: str) -> None:
    job = side.hands.apply(a_job(namespace))
    assert job["metadata"]["generation"] == 1
    side.ask(side.api.apply_status(a_status(job, phase="Pending")))
    side.hands.patch(ref_of(job), {"metadata": {"labels": {"team": "pets"}}})
    assert side.hands.get(ref_of(job))["metadata"]["generation"] == 1
    assert side.hands.patch(ref_of(job), {"spec": {"suspend": True}})["metadata"]["generation"] == 2


def test_a_status_is_applied_without_touching_anything_else(side: Side, namespace: str) -> None:
    job = side.hands.apply(a_job(namespace))
    asked = a_status(job, phase="Pending")
    asked["spec"] = {"suspend": True}
    after = side.ask(side.api.apply_status(asked))
    assert after["status"] == {"phase": "Pending"}
    assert after["spec"] == job["spec"]


def test_a_status_is_left_alone_by_who_applies_the_object(side: Side, namespace: str) -> None:
    job = side.hands.apply(a_job(namespace))
    side.ask(side.api.apply_status(a_status(job, phase="Pending")))
    again = a_job(namespace, **{"spec.suspend": True})
    again["status"] = {"phase": "Failed"}
    assert side.hands.apply(again)["status"] == {"phase": "Pending"}


def test_a_status_is_never_applied_to_nothing(side: Side, namespace: str) -> None:
    job = a_job(namespace)
    job["metadata"]["uid"] = OTHER_UID
    with pytest.raises((NotFound, Conflict)):
        side.ask(side.api.apply_status(a_status(job, phase="Pending")))


def test_a_status_for_another_version_is_a_conflict(side: Side, namespace: str) -> None:
    job = side.hands.apply(a_job(namespace))
    asked = a_status(job, phase="Pending")
    side.hands.patch(ref_of(job), {"metadata": {"labels": {"team": "pets"}}})
    asked["metadata"]["resourceVersion"] = version(job)
    with pytest.raises(Conflict):
        side.ask(side.api.apply_status(asked))


def test_a_status_for_a_job_made_again_under_the_same_name_is_a_conflict(
    side: Side, namespace: str
) -> None:
    job = side.hands.apply(a_job(namespace))
    asked = a_status(job, phase="Pending")
    asked["metadata"]["resourceVersion"] = version(job)
    side.hands.delete(ref_of(job))
    side.hands.apply(a_job(namespace))
    with pytest.raises(Conflict):
        side.ask(side.api.apply_status(asked))


def test_applying_the_same_status_again_changes_nothing(side: Side, namespace: str) -> None:
    job = side.hands.apply(a_job(namespace))
    asked = a_status(job, conditions=[a_condition("Accepted")], progress={"percent": 3})
    first = side.ask(side.api.apply_status(asked))
    assert version(side.ask(side.api.apply_status(asked))) == version(first)


def test_conditions_are_told_apart_by_their_type(side: Side, namespace: str) -> None:
    job = side.hands.apply(a_job(namespace))
    first = [a_condition("Accepted", "yes"), a_condition("Running")]
    side.ask(side.api.apply_status(a_status(job, conditions=first)))
    second = [a_condition("Accepted", "still"), a_condition("Succeeded")]
    after = side.ask(side.api.apply_status(a_status(job, conditions=second)))
    by_type = {each["type"]: each for each in after["status"]["conditions"]}
    assert by_type == {"Accepted": second[0], "Succeeded": second[1]}


def test_tries_are_told_apart_by_their_number(side: Side, namespace: str) -> None:
    job = side.hands.apply(a_job(namespace))
    tries = [{"number": 1, "rayJob": "rex-1"}, {"number": 2}]
    side.ask(side.api.apply_status(a_status(job, attempts=tries)))
    changed = [{"number": 1, "reason": "Lost"}, {"number": 2}]
    after = side.ask(side.api.apply_status(a_status(job, attempts=changed)))
    assert after["status"]["attempts"] == changed


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Happy"},
        {"progress": {"percent": 101}},
        {"progress": {"percent": "3"}},
        {"mood": "happy"},
        {"gpuSeconds": -1},
        {"conditions": [{"type": "Accepted"}]},
        {"attempts": [{"number": 1, "message": "x" * 4097}]},
    ],
    ids=str,
)
def test_a_status_outside_the_definition_is_invalid(
    side: Side, namespace: str, status: Object
) -> None:
    job = side.hands.apply(a_job(namespace))
    with pytest.raises(Invalid):
        side.ask(side.api.apply_status(a_status(job, **status)))


def test_people_read_events_about_a_job(side: Side, namespace: str) -> None:
    job = side.hands.apply(a_job(namespace))
    side.ask(side.api.event(job, Event("Warning", "Retrying", "A machine was lost.")))
    (event,) = side.hands.events(namespace)
    assert event["involvedObject"]["uid"] == job["metadata"]["uid"]
    assert (event["type"], event["reason"]) == ("Warning", "Retrying")
    assert event["message"] == "A machine was lost."
