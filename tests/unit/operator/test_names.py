"""Names fit and never collide."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_operator.names import MAX_ATTEMPTS, MAX_RAY_JOB_NAME, Names

JOB_NAMES = st.from_regex(r"\A[a-z]([-a-z0-9]{0,32}[a-z0-9])?\Z")
UIDS = st.uuids().map(str)


@given(JOB_NAMES, UIDS, st.integers(1, MAX_ATTEMPTS))
def test_a_ray_job_has_a_name_that_kuberay_takes(job: str, uid: str, attempt: int) -> None:
    name = Names(job, "team", uid).ray_job(attempt)
    assert len(name) <= MAX_RAY_JOB_NAME
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)


@given(JOB_NAMES, UIDS)
def test_all_names_and_labels_are_valid(job: str, uid: str) -> None:
    names = Names(job, "team", uid)
    for name in (names.base, names.job_config_map, names.progress_config_map, names.claim):
        assert len(name) <= 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert all(len(value) <= 63 for value in names.labels.values())


@given(JOB_NAMES, UIDS, UIDS)
def test_a_job_made_again_under_its_name_has_other_children(job: str, uid: str, other: str) -> None:
    names = Names(job, "team", uid), Names(job, "team", other)
    assert (names[0].ray_job(1) == names[1].ray_job(1)) == (uid == other)


def test_two_jobs_never_share_a_name_though_one_ends_as_the_other_goes_on() -> None:
    short, long = Names("rex", "team", "u"), Names("rex-1", "team", "u")
    assert short.ray_job(1) != long.ray_job(1)
    assert short.ray_job(11) != short.ray_job(1)


@pytest.mark.parametrize("attempt", [0, -1, MAX_ATTEMPTS + 1])
def test_a_try_that_cannot_be_numbered_is_refused(attempt: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 999"):
        Names("rex", "team", "u").ray_job(attempt)
