"""`dreambooth status`: what a job left behind, in words."""

import json
from pathlib import Path
from typing import Any

import pytest

from dreambooth.workspace.layout import JobFolder, Workspace
from dreambooth.workspace.lock import exclusive
from tests.unit.cli.conftest import RESULT, Command


def a_job(name: str, progress: dict[str, Any] | None, result: Any = None) -> JobFolder:
    folder = Workspace(Path("workspace")).job(name)
    folder.root.mkdir(parents=True)
    if progress is not None:
        folder.progress.write_text(json.dumps(progress))
    if result is not None:
        folder.result.write_text(json.dumps(result))
    return folder


RUNNING: dict[str, Any] = {
    "state": "Running",
    "updated": "2026-01-01T00:00:00Z",
    "stage": "train",
    "warnings": ["IMG_1.jpg is blurred"],
    "stages": {
        "photos": {"state": "Done", "cached": True, "seconds": 0.3},
        "train": {
            "state": "Running",
            "done": 120,
            "total": 240,
            "unit": "steps",
            "loss": 0.2134,
            "etaSeconds": 63.0,
        },
    },
}


def test_a_running_job_shows_its_stages(command: Command) -> None:
    folder = a_job("rex", RUNNING)
    with exclusive(folder.lock, what="job rex"):
        result = command("status", "rex")
    assert result.exit_code == 0
    assert "rex  Running" in result.stdout
    assert "120/240 steps · loss 0.213 · 1 min 3 s to go" in result.stdout
    assert "IMG_1.jpg is blurred" in result.stdout
    assert result.stdout.count("Waiting") == 3


def test_a_job_whose_process_is_gone_is_stopped_and_can_go_on(command: Command) -> None:
    a_job("rex", RUNNING)
    result = command("status", "rex")
    assert "rex  Stopped" in result.stdout
    assert "same command again" in result.stdout


def test_a_finished_job_shows_its_quality_and_places(command: Command) -> None:
    a_job("rex", {"state": "Succeeded", "stages": {}}, RESULT)
    result = command("status", "rex")
    assert "78 % of the way" in result.stdout
    assert "workspace/jobs/rex/contact-sheet.png" in result.stdout


def test_a_failed_job_shows_what_to_do(command: Command) -> None:
    error = {"field": "a.jpg", "remedy": "Replace the [torn] photo.", "reason": "Torn"}
    a_job("rex", {"state": "Failed", "error": error})
    result = command("status", "rex")
    assert "Failed" in result.stdout
    assert "Replace the [torn] photo." in result.stdout


def test_without_a_name_all_jobs_are_listed(command: Command) -> None:
    assert "No jobs on workspace yet." in command("status").stdout
    a_job("rex", RUNNING)
    a_job("ada", None)
    lines = command("status").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["ada", "Stopped"], ["rex", "Stopped"]]
    assert "120/240 steps" in lines[2]


def test_json_is_one_job_a_line(command: Command) -> None:
    a_job("rex", RUNNING, RESULT)
    a_job("ada", None)
    documents = [json.loads(line) for line in command("status", "--json").stdout.splitlines()]
    assert [document["job"] for document in documents] == ["ada", "rex"]
    assert documents[1]["progress"] == RUNNING
    assert documents[1]["result"]["summary"] == RESULT["summary"]
    assert documents[0]["result"] is None


def test_a_manifest_stands_for_its_job(command: Command) -> None:
    a_job("rex", RUNNING)
    assert "rex  Stopped" in command("status", "job.yaml").stdout


@pytest.mark.parametrize("torn", ["", "{", "null"])
def test_a_torn_record_is_no_reason_to_fail(command: Command, torn: str) -> None:
    a_job("rex", None).progress.write_text(torn)
    assert command("status", "rex").exit_code == 0


def test_an_unknown_job_is_refused_with_those_there_are(command: Command) -> None:
    a_job("ada", None)
    result = command("status", "rex")
    assert result.exit_code == 2
    assert "there is no job 'rex'" in result.stderr
    assert "ada" in result.stderr
