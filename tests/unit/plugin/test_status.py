"""`kubectl dreambooth status`, `cancel` and `resume`."""

import io

import pytest
from rich.console import Console

from kubectl_dreambooth.job import JobView
from kubectl_dreambooth.show import duration, job_panel
from kubectl_dreambooth.watching import documents
from tests.unit.plugin.conftest import Cluster, a_job, plugin, succeeded, training


def test_status_of_one_job_shows_its_stages_and_how_far_it_is(cluster: Cluster) -> None:
    cluster.add(training(120))
    shown = plugin("status", "rex")
    assert shown.exit_code == 0
    for words in ("rex  Running", "120/300 steps", "loss 0.12", "30%", "4m 10s to go"):
        assert words in shown.stdout
    assert "was there already" in shown.stdout


def test_status_without_a_name_lists_the_jobs(cluster: Cluster) -> None:
    cluster.add(succeeded())
    cluster.add(a_job("Failed", name="max"))
    shown = plugin("status").stdout
    assert "rex" in shown and "0.80 (efficientnet-lite0)" in shown
    assert "max" in shown and "Failed" in shown


def test_a_namespace_without_jobs_is_said_to_have_none(cluster: Cluster) -> None:
    assert plugin("status").stdout == "There are no DreamBoothJobs here.\n"


def test_watching_goes_on_over_ended_watches_until_the_job_has_succeeded(cluster: Cluster) -> None:
    cluster.add(training(40))
    cluster.will_tell(
        ("MODIFIED", training(40)), ("MODIFIED", training(200)), ("MODIFIED", succeeded())
    )
    shown = plugin("status", "rex", "--watch")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        "Running · train · 10% · step 40/300 · 4m 10s to go",
        "Running · train · 50% · step 200/300 · 4m 10s to go",
        "Succeeded",
    ]


def test_watching_a_job_that_fails_exits_with_1_and_says_why(cluster: Cluster) -> None:
    cluster.add(training(40))
    why = "spec.subject.photos: no photo can be used. Give others."
    condition = {"type": "Succeeded", "status": "False", "reason": "NoPhotos", "message": why}
    cluster.will_tell(("MODIFIED", a_job("Failed", conditions=[condition])))
    shown = plugin("status", "rex", "-w")
    assert shown.exit_code == 1
    assert shown.stdout.splitlines()[-1] == f"Failed · {why}"


def test_watching_a_job_that_is_deleted_ends(cluster: Cluster) -> None:
    cluster.add(training(40))
    cluster.will_tell(("DELETED", training(40)))
    shown = plugin("status", "rex", "-w")
    assert shown.exit_code == 1
    assert shown.stderr == "Error: job rex was deleted.\n"


def test_a_job_that_does_not_exist_is_an_error_without_a_traceback(cluster: Cluster) -> None:
    shown = plugin("status", "max", "-n", "team")
    assert shown.exit_code == 1
    assert 'dreamboothjobs.dreambooth.dev "max" not found' in shown.stderr
    assert "Check the name and the namespace" in shown.stderr
    assert cluster.calls[-1][-2:] == ["--namespace", "team"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('Error from server (Forbidden): jobs is forbidden: User "ann"', "Ask whoever runs"),
        ('error: the server doesn\'t have a resource type "dreamboothjobs"', "Install the Dream"),
        ("error: You must be logged in to the server (Unauthorized)", "You must be logged in"),
        ("Unable to connect to the server: dial tcp: i/o timeout", "Unable to connect"),
        ("sh: cannot open\ncommand terminated with exit code 2", "sh: cannot open"),
        ("command terminated with exit code 137", "exit code 137"),
        ("", "it did not say why"),
    ],
)
def test_what_kubectl_complains_about_is_passed_on(cluster: Cluster, said: str, told: str) -> None:
    cluster.scripts(fail={"get": said})
    shown = plugin("status", "rex")
    assert shown.exit_code == 1
    assert told in shown.stderr
    assert "Traceback" not in shown.output


def test_without_kubectl_it_says_where_to_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECTL", "/nowhere/kubectl")
    shown = plugin("status")
    assert shown.exit_code == 1
    assert "name it in the environment variable KUBECTL" in shown.stderr


def test_cancel_suspends_and_resume_goes_on(cluster: Cluster) -> None:
    cluster.add(training(40))
    assert "kubectl delete dbj rex" in plugin("cancel", "rex").stdout
    assert cluster.job()["spec"]["suspend"] is True
    assert "suspended already" in plugin("cancel", "rex").stdout
    assert "goes on" in plugin("resume", "rex").stdout
    assert cluster.job()["spec"]["suspend"] is False
    assert "is not suspended" in plugin("resume", "rex").stdout


@pytest.mark.parametrize("command", ["cancel", "resume"])
def test_a_job_that_is_over_is_neither_stopped_nor_gone_on_with(
    cluster: Cluster, command: str
) -> None:
    cluster.add(succeeded())
    shown = plugin(command, "rex")
    assert shown.exit_code == 1
    assert "is over (Succeeded)" in shown.stderr
    assert [call[0] for call in cluster.calls] == ["get"]


def test_a_status_of_unknown_shape_is_shown_as_far_as_it_goes() -> None:
    out = io.StringIO()
    strange = {"metadata": {"name": "rex"}, "status": {"stages": ["?"], "conditions": [1], "x": {}}}
    Console(file=out, width=80).print(job_panel(JobView(strange)))
    assert "rex  Pending" in out.getvalue()


def test_documents_come_one_by_one_however_the_bytes_are_cut() -> None:
    text = b'{"a": 1}\n{"b":\n  {"c": "}{"}}{"d": "\xc3\xa4"}'

    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.left = text

        def read(self, size: int = -1) -> bytes:
            piece, self.left = self.left[:1], self.left[1:]
            return piece

    assert list(documents(Slow())) == [{"a": 1}, {"b": {"c": "}{"}}, {"d": "ä"}]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (59.6, "1m"), (250, "4m 10s"), (7200, "2h"), (90_061, "1d 1h"), (None, "?")],
)
def test_durations_are_told_in_their_two_largest_units(seconds: object, words: str) -> None:
    assert duration(seconds) == words
