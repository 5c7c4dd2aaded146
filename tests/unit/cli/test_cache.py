"""`dreambooth cache`: what is there, whose it is, and what may go."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from dreambooth.cli import cache
from dreambooth.workspace.layout import Workspace
from dreambooth.workspace.lock import exclusive
from tests.unit.cli.conftest import Command

DAY = 86_400.0


@pytest.fixture
def space(command: Command) -> Workspace:
    """A model, an encoder and two sets of class pictures by two models."""
    space = Workspace(Path("workspace").absolute())
    put(space.models / "models--org--sd" / "blobs" / "abc", 3000)
    put(space.models / "encoders" / "dino-vits16" / "model.safetensors", 2000)
    for digest, model in (("aaaa", "model-1"), ("bbbb", "model-2")):
        folder = space.pictures / digest
        put(folder / "00000-0.png", 500)
        manifest = {"prompt": f"photo of a dog {digest}", "madeFrom": {"model": model}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return space


def put(file: Path, size: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\0" * size)


def age(folder: Path, days: float) -> None:
    """Makes everything in `folder` look untouched for so long."""
    past = time.time() - days * DAY
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (past, past), follow_symlinks=False)


def record(space: Workspace, job: str, stage: str, outputs: dict[str, Any]) -> Path:
    file = space.job(job).stages / f"{stage}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"outputs": outputs}))
    return file


def say_model(space: Workspace, job: str, digest: str) -> None:
    """What the journal writes when a run has started."""
    progress = {"state": "Running", "resolved": {"modelDigest": digest}}
    space.job(job).progress.write_text(json.dumps(progress))


def names(space: Workspace) -> set[str]:
    return {entry.path.name for entry in cache.entries(space)}


def test_everything_is_listed_with_size_and_users(command: Command, space: Workspace) -> None:
    record(space, "rex", "classImages", {"folder": "cache/class-images/aaaa"})
    result = command("cache", "ls")
    assert result.exit_code == 0
    [sd] = [line for line in result.stdout.splitlines() if "org/sd" in line]
    assert "3 kB" in sd and "model" in sd
    [dog] = [line for line in result.stdout.splitlines() if "1 × photo of a dog aaaa" in line]
    assert dog.split()[-1] == "rex"
    assert "dino-vits16" in result.stdout
    assert "in all" in result.stdout


def test_json_is_one_entry_a_line_the_largest_first(command: Command, space: Workspace) -> None:
    record(space, "rex", "evaluate", {"baseImages": [{"files": ["cache/class-images/bbbb/0.png"]}]})
    lines = command("cache", "ls", "--json").stdout.splitlines()
    documents = [json.loads(line) for line in lines]
    assert [document["kind"] for document in documents][:2] == ["model", "encoder"]
    [used] = [document for document in documents if document["jobs"]]
    assert used["path"] == "cache/class-images/bbbb"
    assert used["jobs"] == ["rex"]
    assert used["neededBy"] is None


def test_an_empty_cache_is_no_mistake(command: Command) -> None:
    assert "Nothing is cached." in command("cache", "ls").stdout
    assert "Nothing to remove." in command("cache", "prune", "--all", "--yes").stdout


def test_links_to_one_file_are_counted_once(space: Workspace) -> None:
    blob = space.models / "models--org--sd" / "blobs" / "abc"
    os.link(blob, blob.with_name("again"))
    [entry] = [entry for entry in cache.entries(space) if entry.name == "org/sd"]
    assert entry.size == 3000


def test_prune_removes_what_is_old_and_only_that(command: Command, space: Workspace) -> None:
    age(space.pictures / "aaaa", days=40)
    result = command("cache", "prune", "--older-than", "30d", "--yes")
    assert result.exit_code == 0
    assert names(space) == {"models--org--sd", "dino-vits16", "bbbb"}
    assert "Freed" in result.stdout


def test_a_job_that_read_an_entry_lately_keeps_it_young(command: Command, space: Workspace) -> None:
    age(space.pictures / "aaaa", days=40)
    record(space, "rex", "classImages", {"folder": "cache/class-images/aaaa"})
    command("cache", "prune", "--older-than", "30d", "--yes")
    assert "aaaa" in names(space)


def test_all_removes_everything_but_no_jobs(command: Command, space: Workspace) -> None:
    record(space, "rex", "classImages", {"folder": "cache/class-images/aaaa"})
    command("cache", "prune", "--all", "--yes")
    assert names(space) == set()
    assert (space.job("rex").stages / "classImages.json").is_file()


@pytest.mark.parametrize(("answer", "left"), [("n\n", 4), ("\n", 4), ("y\n", 0)])
def test_prune_asks_first(command: Command, space: Workspace, answer: str, left: int) -> None:
    result = command("cache", "prune", "--all", input=answer)
    assert result.exit_code == 0
    assert "Remove these and free" in result.stdout
    assert len(names(space)) == left


def test_without_an_answer_nothing_is_removed(command: Command, space: Workspace) -> None:
    assert command("cache", "prune", "--all", input="").exit_code == 130
    assert len(names(space)) == 4


def test_a_running_job_keeps_models_and_its_own_models_pictures(
    command: Command, space: Workspace
) -> None:
    with exclusive(space.job("rex").lock, what="job rex"):
        say_model(space, "rex", "model-1")
        result = command("cache", "prune", "--all", "--yes")
    assert names(space) == {"models--org--sd", "dino-vits16", "aaaa"}
    assert result.stdout.count("job rex is running") == 3


def test_a_running_job_keeps_what_its_records_name(command: Command, space: Workspace) -> None:
    record(space, "rex", "evaluate", {"baseImages": [{"files": ["cache/class-images/bbbb/0.png"]}]})
    with exclusive(space.job("rex").lock, what="job rex"):
        say_model(space, "rex", "model-1")
        command("cache", "prune", "--all", "--yes")
    assert {"aaaa", "bbbb"} <= names(space)


def test_a_job_that_has_just_started_keeps_everything(command: Command, space: Workspace) -> None:
    folder = space.job("rex")
    folder.root.mkdir(parents=True)
    # From an earlier run, perhaps with another model.
    say_model(space, "rex", "model-1")
    age(folder.root, days=1)
    with exclusive(folder.lock, what="job rex"):
        command("cache", "prune", "--all", "--yes")
    assert len(names(space)) == 4


def test_a_job_that_starts_while_the_question_is_open_keeps_its_own(space: Workspace) -> None:
    chosen = cache.entries(space)
    with exclusive(space.job("rex").lock, what="job rex"):
        assert cache.prune(space, chosen) == []
    assert len(names(space)) == 4
    assert len(cache.prune(space, chosen)) == 4
    assert names(space) == set()
