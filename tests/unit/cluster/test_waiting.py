"""A wait ends with its condition, its deadline or its process, and tells why."""

from pathlib import Path

import pytest

from localcluster.errors import ClusterError
from localcluster.waiting import wait_until


def test_it_asks_until_the_condition_holds() -> None:
    answers = iter([False, False, True])
    wait_until("the third answer", lambda: next(answers), 60, interval=0)
    assert next(answers, None) is None


def test_a_missed_deadline_names_the_state_and_ends_with_the_log(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    with pytest.raises(ClusterError) as caught:
        wait_until("a miracle", lambda: False, 0, log=log, explain=lambda: "the pods", interval=0)
    lines = str(caught.value).splitlines()
    assert lines[0] == "waited for a miracle: not within 0 s"
    assert "the pods" in lines
    assert lines[-1] == "line 99" and "line 79" not in lines


def test_it_does_not_wait_for_what_a_dead_process_should_have_done(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="waited for an answer: its process ended"):
        wait_until("an answer", lambda: False, 3600, alive=lambda: False)


def test_a_log_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no such log"):
        wait_until("an answer", lambda: False, 0, log=tmp_path / "none", interval=0)
