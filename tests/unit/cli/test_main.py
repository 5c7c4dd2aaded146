"""The command as a user meets it: what it says, where it says it, how it ends."""

import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import dreambooth
from dreambooth.api.job import Job
from dreambooth.errors import InfrastructureError, UserError
from dreambooth.pipeline.progress import Event, EventKind, Listener
from tests.unit.cli.conftest import MANIFEST, Command, succeeds

COMMANDS = ["validate", "run", "status", "generate", "cache", "cache ls", "cache prune"]


def raises(error: BaseException) -> Any:
    def script(job: Job, workspace: Path, listeners: Sequence[Listener]) -> dict[str, Any]:
        raise error

    return script


def announces(error: BaseException, event: Event) -> Any:
    """As the driver does it: tells its listeners, then raises."""

    def script(job: Job, workspace: Path, listeners: Sequence[Listener]) -> dict[str, Any]:
        for listener in listeners:
            listener(event)
        raise error

    return script


def events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("words", ["", *COMMANDS])
def test_every_command_explains_itself(command: Command, words: str) -> None:
    result = command(*words.split(), "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    options = re.findall(r"^  (-.*)$", result.stdout, re.M)
    assert options
    assert "Exit codes: 0 done, 2" in command("--help").stdout


def test_the_version_is_the_packages(command: Command) -> None:
    result = command("--version")
    assert result.stdout.strip() == f"dreambooth, version {dreambooth.__version__}"


@pytest.mark.parametrize(
    "words",
    [
        ["frobnicate"],
        ["run"],
        ["run", "job.yaml", "--fast"],
        ["generate", "rex"],
        ["generate", "rex", "--prompt", "p", "--count", "0"],
        ["cache", "prune"],
        ["cache", "prune", "--all", "--older-than", "30d"],
        ["cache", "prune", "--older-than", "a while"],
    ],
)
def test_a_mistake_in_the_command_line_is_a_user_error(command: Command, words: list[str]) -> None:
    result = command(*words)
    assert result.exit_code == 2
    assert "Error:" in result.stderr
    assert result.stdout == ""


def test_a_valid_manifest_is_said_to_be_one(command: Command) -> None:
    result = command("validate", "job.yaml")
    assert result.exit_code == 0
    assert "job.yaml is valid: job rex" in result.stdout
    document = json.loads(command("validate", "job.yaml", "--json").stdout)
    assert document["valid"] is True
    assert document["manifest"]["spec"]["subject"]["class"] == "dog"


@pytest.mark.parametrize("words", [["validate"], ["run"]])
def test_a_wrong_manifest_names_the_field_and_nothing_runs(
    command: Command, words: list[str]
) -> None:
    command.drives(succeeds)
    Path("job.yaml").write_text(MANIFEST.replace("class: dog", "klass: dog"))
    result = command(*words, "job.yaml")
    assert result.exit_code == 2
    assert "klass" in result.stderr
    assert "Traceback" not in result.output
    assert command.calls == []


def test_a_manifest_that_is_not_there_is_named(command: Command) -> None:
    result = command("run", "gone.yaml")
    assert result.exit_code == 2
    assert "gone.yaml" in result.stderr


def test_a_run_uses_the_default_workspace_or_the_one_that_is_given(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.drives(succeeds)
    assert command("run", "job.yaml").exit_code == 0
    assert command("run", "job.yaml", "--workspace", "other").exit_code == 0
    monkeypatch.setenv("DREAMBOOTH_WORKSPACE", "from-the-environment")
    assert command("run", "job.yaml").exit_code == 0
    assert [str(workspace) for _, workspace in command.calls] == [
        "workspace",
        "other",
        "from-the-environment",
    ]
    assert all(job.id == "rex" for job, _ in command.calls)


def test_a_run_ends_with_quality_places_and_times(command: Command) -> None:
    command.drives(succeeds)
    result = command("run", "job.yaml")
    assert result.exit_code == 0
    for expected in (
        "78 % of the way",
        "workspace/jobs/rex/model",
        "workspace/jobs/rex/images",
        "workspace/jobs/rex/contact-sheet.png",
        "workspace/jobs/rex/report.html",
        "photos cached · training 3 min 5 s",
        "21 s of 3 min 10 s",
        "3.2 GB",
    ):
        assert expected in result.stdout
    assert result.stderr == ""


def test_json_is_one_event_a_line_and_nothing_else(command: Command) -> None:
    command.drives(succeeds)
    result = command("run", "job.yaml", "--json")
    assert result.exit_code == 0
    told = events(result.stdout)
    assert [event["kind"] for event in told][:2] == ["jobStarted", "stageFinished"]
    assert told[-1]["kind"] == "jobFinished"
    assert told[-1]["data"]["outputs"]["folder"] == "jobs/rex"
    assert result.stderr == ""


def test_numbers_that_json_lacks_become_null(command: Command) -> None:
    diverged = Event(EventKind.STAGE_PROGRESS, loss=float("nan"), data={"x": [float("inf"), 1.0]})
    command.drives(announces(UserError("x"), diverged))
    first = events(command("run", "job.yaml", "--json").stdout)[0]
    assert first["loss"] is None
    assert first["data"] == {"x": [None, 1.0]}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("the photo is torn", field="a.jpg", remedy="Replace it."), 2),
        (InfrastructureError("the disk is full", field="a.jpg", remedy="Replace it."), 3),
    ],
)
def test_a_known_error_is_one_message_and_its_code(
    command: Command, error: UserError, code: int
) -> None:
    command.drives(raises(error))
    result = command("run", "job.yaml")
    assert result.exit_code == code
    assert result.stderr == f"Error: a.jpg: {error.message}. Replace it.\n"
    assert result.stdout == ""


def test_with_json_a_failure_is_exactly_one_event(command: Command) -> None:
    error = UserError("the photo is torn", field="a.jpg", remedy="Replace it.", reason="Torn")
    command.drives(raises(error))
    silent = command("run", "job.yaml", "--json")
    own = Event(EventKind.JOB_FAILED, message="told by the driver", data={"exitCode": 2})
    command.drives(announces(error, own))
    told = command("run", "job.yaml", "--json")
    assert (silent.exit_code, told.exit_code) == (2, 2)
    [event] = events(silent.stdout)
    assert event["kind"] == "jobFailed"
    assert event["message"] == "a.jpg: the photo is torn. Replace it."
    assert event["data"]["reason"] == "Torn"
    assert event["data"]["exitCode"] == 2
    assert [event["message"] for event in events(told.stdout)] == ["told by the driver"]


def test_with_json_a_wrong_manifest_is_an_event_too(command: Command) -> None:
    Path("job.yaml").write_text("kind: Other")
    for words in (["run", "job.yaml"], ["validate", "job.yaml"]):
        result = command(*words, "--json")
        assert result.exit_code == 2
        [event] = events(result.stdout)
        assert event["kind"] == "jobFailed"
        assert event["data"]["exitCode"] == 2


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(15)])
def test_an_interrupted_run_says_how_to_go_on(
    command: Command, interruption: BaseException
) -> None:
    command.drives(raises(interruption))
    result = command("run", "job.yaml", "--workspace", "my work")
    assert result.exit_code == 130
    assert "dreambooth run job.yaml --workspace 'my work'" in result.stderr
    assert "Traceback" not in result.output
    as_json = command("run", "job.yaml", "--json")
    assert as_json.exit_code == 130
    [event] = events(as_json.stdout)
    assert event["data"] == {"state": "Interrupted", "exitCode": 130}


def test_a_polite_kill_is_an_interruption(command: Command) -> None:
    def killed(job: Job, workspace: Path, listeners: Sequence[Listener]) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not arrive")

    command.drives(killed)
    assert command("run", "job.yaml").exit_code == 130


def test_a_defect_is_one_message_with_the_traceback_in_the_jobs_log(command: Command) -> None:
    log = Path("workspace/jobs/rex/log.txt")
    log.parent.mkdir(parents=True)
    log.write_text("earlier line\n")
    command.drives(raises(ZeroDivisionError("division by zero")))
    result = command("run", "job.yaml")
    assert result.exit_code == 3
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert str(log.absolute()) in result.stderr
    assert "Traceback" not in result.output
    written = log.read_text()
    assert written.startswith("earlier line\n")
    assert "Traceback" in written and "ZeroDivisionError" in written


def test_a_defect_before_there_is_a_job_keeps_its_traceback_somewhere(command: Command) -> None:
    command.drives(raises(ZeroDivisionError("division by zero")))
    result = command("run", "job.yaml", "--json")
    assert result.exit_code == 3
    [event] = events(result.stdout)
    assert event["data"]["reason"] == "Unexpected"
    [file] = re.findall(r"report it with (\S+\.log)", event["message"])
    assert "ZeroDivisionError" in Path(file).read_text()
    Path(file).unlink()


def test_generate_asks_the_tuned_model_and_lists_the_files(command: Command) -> None:
    asked: list[tuple[Any, ...]] = []

    def draw(*arguments: Any, on_progress: Any) -> list[Path]:
        asked.append(arguments)
        on_progress(2, 2)
        return [Path("out/0000.png"), Path("out/0001.png")]

    command.draws(draw)
    prompt = "a {token} {class} on the moon"
    words = ["rex", "--prompt", prompt, "--count", "2", "--seed", "7", "--out", "out"]
    result = command("generate", *words)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["out/0000.png", "out/0001.png"]
    assert asked == [(Path("workspace"), "rex", [prompt], 2, 7, Path("out"))]
    assert json.loads(command("generate", *words, "--json").stdout) == {
        "files": ["out/0000.png", "out/0001.png"]
    }


def test_generate_takes_the_manifest_and_says_when_a_prompt_lacks_the_subject(
    command: Command,
) -> None:
    asked: list[str] = []

    def draw(_: Path, job: str, *__: Any, on_progress: Any) -> list[Path]:
        asked.append(job)
        return []

    command.draws(draw)
    result = command("generate", "job.yaml", "--prompt", "a dog")
    assert asked == ["rex"]
    assert "need not show the subject" in result.stderr
    with_token = command("generate", "rex", "--prompt", "a {token} {class}")
    assert with_token.stderr == ""


def test_generate_for_a_job_that_is_not_done_is_a_user_error(command: Command) -> None:
    def refuse(*_: Any, **__: Any) -> list[Path]:
        raise UserError("job 'rex' has no finished model", remedy="Run the job to its end first.")

    command.draws(refuse)
    result = command("generate", "rex", "--prompt", "a {token} dog")
    assert result.exit_code == 2
    assert (
        result.stderr == "Error: job 'rex' has no finished model. Run the job to its end first.\n"
    )


@pytest.mark.parametrize("name", ["../rex", "a/b", "..", ""])
def test_a_jobs_name_cannot_lead_out_of_the_workspace(command: Command, name: str) -> None:
    result = command("generate", name, "--prompt", "a {token} dog")
    assert result.exit_code == 2
    assert "is no job's name" in result.stderr
