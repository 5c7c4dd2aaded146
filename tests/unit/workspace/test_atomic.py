"""Writes are whole or absent."""

import errno
import os
from pathlib import Path

import pytest

from dreambooth.errors import InfrastructureError
from dreambooth.workspace import atomic


def test_a_written_file_has_its_content_and_leaves_no_temporary(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "deep" / "file.txt", "content")
    assert (tmp_path / "deep" / "file.txt").read_text() == "content"
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["file.txt"]


def test_a_write_that_dies_before_the_rename_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file.txt"
    atomic.write_text(target, "old")

    def die(source: Path, destination: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_text(target, "new")
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_disk_that_refuses_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InfrastructureError) as caught:
        atomic.write_bytes(tmp_path / "file", b"x")
    assert words in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_equal_values_make_equal_json_files(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a", {"b": 1, "a": [1.5, "é"]})
    atomic.write_json(tmp_path / "b", {"a": [1.5, "é"], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_torn_and_missing_json_reads_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "torn").write_text('{"a": ')
    assert atomic.read_json(tmp_path / "torn") is None
    assert atomic.read_json(tmp_path / "missing") is None


def test_a_published_folder_replaces_the_older_one_whole(tmp_path: Path) -> None:
    final = tmp_path / "model"
    final.mkdir()
    (final / "stale").write_text("old")
    fresh = atomic.temporary_sibling(final)
    fresh.mkdir()
    (fresh / "weights").write_text("new")
    atomic.publish_dir(fresh, final)
    assert [entry.name for entry in final.iterdir()] == ["weights"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_sweeping_removes_what_interrupted_writes_left_and_nothing_else(tmp_path: Path) -> None:
    atomic.temporary_sibling(tmp_path / "folder").mkdir()
    atomic.temporary_sibling(tmp_path / "file").write_text("half")
    (tmp_path / "kept").write_text("whole")
    atomic.sweep_temporaries(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_of_two_that_publish_the_same_folder_the_first_one_stays(tmp_path: Path) -> None:
    final = tmp_path / "models" / "ready"
    for number, wanted in ((1, True), (2, False)):
        fresh = tmp_path / f"fresh-{number}"
        fresh.mkdir()
        (fresh / "weights").write_text(str(number))
        assert atomic.publish_dir_once(fresh, final) is wanted
        assert not fresh.exists()
    assert (final / "weights").read_text() == "1"
    assert [entry.name for entry in final.parent.iterdir()] == ["ready"]


def test_a_refusal_names_the_file_as_the_user_knows_it(tmp_path: Path) -> None:
    temporary = atomic.temporary_sibling(tmp_path / "photos") / "00.png"
    with pytest.raises(InfrastructureError) as caught, atomic.disk_errors(temporary):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.field == str(tmp_path / "photos" / "00.png")
