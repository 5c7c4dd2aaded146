"""What the documents show works as they show it: manifests, commands, code, tables, pictures."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from PIL import Image

from bench import cpu
from bench.tables import between, quality_tables
from dreambooth.api.manifest import load_job
from dreambooth.cli.main import main
from dreambooth.workspace.atomic import read_json

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    file
    for pattern in ("*.md", "docs/*.md", "docs/reference/*.md", "examples/*.md", "runtime/*.md")
    for file in ROOT.glob(pattern)
)
SMALLEST: dict[str, Any] = {
    "apiVersion": "dreambooth.dev/v1alpha1",
    "kind": "DreamBoothJob",
    "metadata": {"name": "rex"},
}
SUBJECT = {"class": "dog", "photos": {"path": "photos/rex"}}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Name of the document and content of each fenced block of `language`."""
    for file in DOCUMENTS:
        text = file.read_text(encoding="utf-8")
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S):
            yield str(file.relative_to(ROOT)), block


def commands() -> Iterator[tuple[str, list[str]]]:
    """Name of the document and the words of each `dreambooth` command in it."""
    for file in DOCUMENTS:
        text = file.read_text(encoding="utf-8")
        lines = re.findall(r"^(?:\$ )?((?:\w+=\S+ )*dreambooth .+)$", text, re.M)
        for line in [*lines, *re.findall(r"`(dreambooth [a-z][^`\n]*)`", text)]:
            words = shlex.split(re.sub(r"^(\w+=\S+ )*", "", line), comments=True)
            yield str(file.relative_to(ROOT)), words[1:]


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Whole manifests, and parts of a spec put into the smallest one."""
    for name, block in blocks("yaml"):
        shown = yaml.safe_load(block)
        if "kind" in shown:
            if shown["kind"] == "DreamBoothJob":
                yield name, shown
        else:
            yield name, {**SMALLEST, "spec": {"subject": SUBJECT, **shown}}


@pytest.mark.parametrize(
    ("name", "manifest"), [pytest.param(*each, id=each[0]) for each in manifests()]
)
def test_a_manifest_in_a_document_is_valid(
    name: str, manifest: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    assert load_job(file).name == manifest["metadata"]["name"], name


def test_a_command_in_a_document_exists_with_its_options() -> None:
    unknown = [f"{name}: {' '.join(words)}" for name, words in commands() if not _known(words)]
    assert unknown == []
    assert {"run", "validate", "status", "generate"} <= {words[0] for _, words in commands()}


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("run job.yaml --workspace work", True),
        ("cache prune --older-than 30d", True),
        ("--help", True),
        ("run job.yaml --fast", False),
        ("train job.yaml", False),
        ("cache empty", False),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, known: bool) -> None:
    assert _known(line.split()) == known


@pytest.mark.parametrize(
    ("name", "code"), [pytest.param(*each, id=each[0]) for each in blocks("python")]
)
def test_python_in_a_document_is_python(name: str, code: str) -> None:
    assert compile(code, name, "exec").co_code


def test_the_tables_show_the_measured_figures() -> None:
    results = ROOT / "bench" / "results"
    quality = quality_tables(read_json(results / "quality.json") or {})
    shown = {name: between(ROOT / "docs" / "quality.md", name) for name in quality}
    assert shown == quality
    performance = cpu.performance_tables(read_json(results / "cpu.json") or {})
    assert {name: between(cpu.DOCUMENT, name) for name in performance} == performance


def test_the_readme_shows_a_picture_that_a_page_can_load() -> None:
    (source,) = re.findall(
        r"!\[[^]]{20,}\]\((docs/images/[^)]+)\)", (ROOT / "README.md").read_text()
    )
    with Image.open(ROOT / source) as picture:
        assert picture.width >= 600
    assert (ROOT / source).stat().st_size < 1_000_000


def test_every_example_is_in_the_list_of_examples() -> None:
    folder = ROOT / "examples"
    listed = set(re.findall(r"\]\(([\w/-]+\.yaml)\)", (folder / "README.md").read_text()))
    there = {str(file.relative_to(folder)) for file in folder.rglob("*.yaml")}
    assert listed == there - {"kubernetes/robot/photos.yaml"}


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)#]+\.md)\)", index))
    assert {file.name for file in (ROOT / "docs").glob("*.md")} - linked == {"README.md"}


def _known(words: list[str]) -> bool:
    """Whether the `dreambooth` command has this subcommand with these options."""
    command: click.Command = main
    words = list(words)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words.pop(0))
        if found is None:
            return False
        command = found
    known = {option for each in command.get_params(click.Context(command)) for option in each.opts}
    return {word.partition("=")[0] for word in words if word.startswith("-")} <= known
