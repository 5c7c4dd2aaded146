"""What the operator relies on of the API, of the real one and of the fake alike."""

import copy

import pytest

from dreambooth_operator.kube.errors import Conflict, Invalid, KindNotServed, NotFound
from dreambooth_operator.kube.kinds import CONFIG_MAP, RAY_JOB, Kind, Ref, ref_of
from tests.contract.builders import (
    OTHER_UID,
    a_config_map,
    a_ray_job,
    version,
)
from tests.contract.conftest import Side


def test_an_object_that_is_applied_for_the_first_time_is_made(side: Side, namespace: str) -> None:
    made = side.ask(side.api.apply(a_config_map(namespace, rex="woof")))
    assert made["metadata"]["uid"]
    assert made["data"] == {"rex": "woof"}
    assert side.ask(side.api.get(ref_of(made))) == made


def test_an_object_that_is_not_there_is_not_found(side: Side, namespace: str) -> None:
    with pytest.raises(NotFound) as caught:
        side.ask(side.api.get(Ref(CONFIG_MAP, namespace, "photos")))
    assert not isinstance(caught.value, KindNotServed)


def test_a_kind_that_is_not_installed_is_told_from_an_object_that_is_not_there(
    side: Side, namespace: str
) -> None:
    missing = Kind("ray.io/v9", "RayJob", "rayjobs")
    with pytest.raises(KindNotServed):
        side.ask(side.api.list(missing, namespace, {}))
    with pytest.raises(KindNotServed):
        side.ask(side.api.get(Ref(missing, namespace, "rex")))


def test_applying_the_same_again_changes_nothing(side: Side, namespace: str) -> None:
    first = side.ask(side.api.apply(a_config_map(namespace, rex="woof")))
    second = side.ask(side.api.apply(a_config_map(namespace, rex="woof")))
    assert version(first) == version(second)


def test_what_is_no_longer_applied_goes_and_what_others_added_stays(
    side: Side, namespace: str
) -> None:
    made = side.ask(side.api.apply(a_config_map(namespace, rex="woof", tom="meow")))
    side.hands.patch(ref_of(made), {"data": {"bob": "moo"}})
    now = side.ask(side.api.apply(a_config_map(namespace, rex="woof")))
    assert now["data"] == {"rex": "woof", "bob": "moo"}


def test_a_map_that_is_no_longer_applied_goes_whole(side: Side, namespace: str) -> None:
    side.ask(side.api.apply(a_config_map(namespace, rex="woof")))
    now = side.ask(side.api.apply(CONFIG_MAP.new(namespace, "photos")))
    assert "data" not in now


def test_an_edit_by_others_is_undone_by_the_next_apply(side: Side, namespace: str) -> None:
    made = side.ask(side.api.apply(a_config_map(namespace, rex="woof")))
    side.hands.patch(ref_of(made), {"data": {"rex": "meow"}})
    assert side.ask(side.api.apply(a_config_map(namespace, rex="woof")))["data"]["rex"] == "woof"


def test_what_others_wrote_into_an_empty_object_survives_an_apply(
    side: Side, namespace: str
) -> None:
    made = side.ask(side.api.apply(CONFIG_MAP.new(namespace, "photos")))
    side.hands.patch(ref_of(made), {"data": {"progress": "{}"}})
    now = side.ask(side.api.apply(CONFIG_MAP.new(namespace, "photos")))
    assert now["data"] == {"progress": "{}"}


def test_what_two_want_goes_only_when_neither_wants_it(side: Side, namespace: str) -> None:
    side.ask(side.api.apply(a_config_map(namespace, rex="woof")))
    side.hands.apply(a_config_map(namespace, rex="woof"))
    assert side.ask(side.api.apply(CONFIG_MAP.new(namespace, "photos")))["data"] == {"rex": "woof"}
    side.hands.apply(CONFIG_MAP.new(namespace, "photos"))
    assert "data" not in side.hands.get(Ref(CONFIG_MAP, namespace, "photos"))


def test_applying_to_another_version_than_the_one_meant_is_a_conflict(
    side: Side, namespace: str
) -> None:
    side.ask(side.api.apply(a_config_map(namespace, rex="woof")))
    meant = a_config_map(namespace, rex="meow")
    meant["metadata"]["resourceVersion"] = "1"
    with pytest.raises(Conflict):
        side.ask(side.api.apply(meant))


def test_applying_to_another_object_than_the_one_meant_is_invalid(
    side: Side, namespace: str
) -> None:
    side.ask(side.api.apply(a_config_map(namespace, rex="woof")))
    meant = a_config_map(namespace, rex="meow")
    meant["metadata"]["uid"] = OTHER_UID
    with pytest.raises(Invalid):
        side.ask(side.api.apply(meant))


def test_applying_to_an_object_that_is_gone_does_not_make_another(
    side: Side, namespace: str
) -> None:
    meant = a_config_map(namespace, rex="woof")
    meant["metadata"]["uid"] = OTHER_UID
    with pytest.raises(Conflict):
        side.ask(side.api.apply(meant))


def test_nothing_is_made_in_a_namespace_that_is_not_there(side: Side) -> None:
    with pytest.raises(NotFound):
        side.ask(side.api.apply(a_config_map("nowhere", rex="woof")))


def test_a_label_that_is_too_long_is_invalid(side: Side, namespace: str) -> None:
    labelled = a_config_map(namespace)
    labelled["metadata"]["labels"] = {"name": "x" * 64}
    with pytest.raises(Invalid):
        side.ask(side.api.apply(labelled))


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_config_map_beyond_a_mebibyte_is_invalid(side: Side, namespace: str) -> None:
    with pytest.raises(Invalid):
        side.ask(side.api.apply(a_config_map(namespace, rex="w" * (2**20 + 1))))


def test_only_the_very_object_is_deleted(side: Side, namespace: str) -> None:
    made = side.ask(side.api.apply(a_ray_job(namespace)))
    with pytest.raises(Conflict):
        side.ask(side.api.delete(ref_of(made), OTHER_UID))
    assert side.ask(side.api.get(ref_of(made)))["metadata"]["uid"] == made["metadata"]["uid"]
    side.ask(side.api.delete(ref_of(made), made["metadata"]["uid"]))
    with pytest.raises(NotFound):
        side.ask(side.api.get(ref_of(made)))
    with pytest.raises(NotFound):
        side.ask(side.api.delete(ref_of(made), made["metadata"]["uid"]))


def test_an_object_made_again_is_another_one(side: Side, namespace: str) -> None:
    first = side.ask(side.api.apply(a_ray_job(namespace)))
    side.hands.delete(ref_of(first))
    second = side.ask(side.api.apply(a_ray_job(namespace)))
    assert first["metadata"]["uid"] != second["metadata"]["uid"]


def test_an_object_with_a_finalizer_stays_until_it_is_taken_off(side: Side, namespace: str) -> None:
    made = side.ask(side.api.apply(a_ray_job(namespace)))
    ref, uid = ref_of(made), made["metadata"]["uid"]
    side.hands.patch(ref, {"metadata": {"finalizers": ["ray.io/rayjob-finalizer"]}})
    side.ask(side.api.delete(ref, uid))
    there = side.ask(side.api.get(ref))
    assert there["metadata"]["deletionTimestamp"]
    side.ask(side.api.delete(ref, uid))
    assert side.ask(side.api.get(ref))["metadata"]["uid"] == uid
    side.hands.patch(ref, {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        side.ask(side.api.get(ref))


def test_the_status_of_a_ray_job_is_kuberays_and_its_spec_ours(side: Side, namespace: str) -> None:
    made = side.ask(side.api.apply(a_ray_job(namespace)))
    side.hands.patch_status(ref_of(made), {"jobDeploymentStatus": "Running"})
    after = side.ask(side.api.apply(a_ray_job(namespace, suspend=True)))
    assert after["status"]["jobDeploymentStatus"] == "Running"
    assert after["spec"]["suspend"] is True
    assert after["metadata"]["generation"] == 2


def test_a_finalizer_of_others_survives_an_apply(side: Side, namespace: str) -> None:
    made = side.ask(side.api.apply(a_ray_job(namespace)))
    side.hands.patch(ref_of(made), {"metadata": {"finalizers": ["ray.io/rayjob-finalizer"]}})
    after = side.ask(side.api.apply(a_ray_job(namespace, suspend=True)))
    assert after["metadata"]["finalizers"] == ["ray.io/rayjob-finalizer"]


def test_objects_are_listed_by_all_of_the_labels(side: Side, namespace: str) -> None:
    for name, labels in {"a": {"x": "1"}, "b": {"x": "1", "y": "2"}, "c": {"y": "2"}}.items():
        obj = a_ray_job(namespace)
        obj["metadata"] |= {"name": name, "labels": {"in": namespace, **labels}}
        side.ask(side.api.apply(obj))

    def names(within: str | None, **labels: str) -> list[str]:
        found = side.ask(side.api.list(RAY_JOB, within, {"in": namespace, **labels}))
        return sorted(obj["metadata"]["name"] for obj in found)

    assert names(namespace, x="1") == ["a", "b"]
    assert names(None, x="1", y="2") == ["b"]
    assert names(namespace) == ["a", "b", "c"]
    assert names("elsewhere") == []


def test_listed_objects_say_what_they_are(side: Side, namespace: str) -> None:
    made = side.ask(side.api.apply(a_ray_job(namespace)))
    assert side.ask(side.api.list(RAY_JOB, namespace, {})) == [made]


def test_checking_an_object_makes_nothing(side: Side, namespace: str) -> None:
    asked = a_ray_job(namespace)
    before = copy.deepcopy(asked)
    side.ask(side.api.check(asked))
    assert asked == before
    with pytest.raises(NotFound):
        side.ask(side.api.get(ref_of(asked)))
