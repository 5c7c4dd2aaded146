"""What has to hold for the repository as a whole, whoever changes it."""

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import licences, locks

ROOT = Path(__file__).resolve().parents[2]

# Places that exist on one machine only, and hosts that others may reach through a mirror.
# Root's home may be named where it is a container's: the target of a mount.
MACHINE_PATH = re.compile(
    r"(?<![\w.$})-])/(?:(?:work|Users)/\w|home/(?!ray\b)\w|(?<!target=/)(?<!:/)root/[\w.])"
)
REGISTRY_HOST = re.compile(
    r"\bpypi\.org|pythonhosted\.org|registry\.npmjs|\bcrates\.io|proxy\.golang\.org"
    r"|repo1?\.maven|deb\.debian\.org"
)

# What a person waits for at every command, and the libraries that take seconds to import.
LIGHT = ("errors.py", "pipeline/progress.py", "api", "cli", "photos", "report", "workspace")
HEAVY = {"diffusers", "pandas", "pyarrow", "ray", "torch", "transformers"}


def tracked(*patterns: str) -> list[Path]:
    """Files under version control that exist (others may be deleting one right now)."""
    command = ["git", "ls-files", "-z", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def texts(*patterns: str) -> Iterator[tuple[str, str]]:
    """Name and content of the tracked files that are text."""
    for path in tracked(*patterns):
        content = path.read_bytes()
        if b"\0" not in content:
            yield str(path.relative_to(ROOT)), content.decode()


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{name}: {match.group()}"
        for name, text in texts()
        for match in MACHINE_PATH.finditer(text)
    ]
    assert found == []


def test_no_file_names_the_host_of_a_package_registry() -> None:
    own = str(Path(__file__).relative_to(ROOT))
    found = [
        f"{name}: {match.group()}"
        for name, text in texts()
        if name != own
        for match in REGISTRY_HOST.finditer(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "is_machine_path"),
    [
        ("see /" + "work/main/file", True),
        ('open("/' + 'root/.cache")', True),
        ("/" + "home/ann/photos", True),
        ("mountPath: /workspace/jobs", False),
        ("$HOME/" + "work/photos", False),
        ("https://example.com/home/page", False),
        ("/home/ray/.local", False),
        ("RUN --mount=type=cache,target=/" + "root/.cache", False),
        ("--volume={packages}:/" + "root/.cache/uv", False),
        ("PYTHONPATH=a:/" + "work/main/b", True),
    ],
)
def test_machine_paths_are_told_from_paths_of_containers_and_users(
    line: str, is_machine_path: bool
) -> None:
    assert bool(MACHINE_PATH.search(line)) == is_machine_path


def test_every_test_asserts_something() -> None:
    silent = [
        f"{name}::{function.name}"
        for name, text in texts("tests/**/test_*.py")
        for function in ast.walk(ast.parse(text))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and function.name.startswith("test_")
        and not any(_asserts(node) for node in ast.walk(function))
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("body", "asserts"),
    [
        ("assert x == 1", True),
        ("with pytest.raises(ValueError): f()", True),
        ("assert_same_files(a, b)", True),
        ("numpy.testing.assert_allclose(a, b)", True),
        ("f()", False),
        ("assert True", False),
    ],
)
def test_an_assertion_that_cannot_fail_does_not_count(body: str, asserts: bool) -> None:
    assert any(_asserts(node) for node in ast.walk(ast.parse(body))) == asserts


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for name, text in texts("*.md"):
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", prose):
            link = target[0] or target[1]
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = link.partition("#")
            path = (ROOT / name).parent / file if file else ROOT / name
            if not path.exists() or (anchor and anchor not in _anchors(path.read_text())):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_make_help_lists_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    listed = set(re.findall(r"^  make ([\w-]+) ", shown.stdout, re.M))
    assert _targets() - listed == set()
    assert {"demo", "test", "verify"} <= listed


def test_every_make_command_in_a_document_exists() -> None:
    unknown = [
        f"{name}: make {target}"
        for name, text in texts("*.md")
        for target in re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.M)
        if target not in _targets()
    ]
    assert unknown == []


def test_commands_answer_without_loading_the_libraries_that_train() -> None:
    runtime = ROOT / "runtime"
    files = tracked(*(f"runtime/dreambooth/{part}" for part in LIGHT))
    modules = [
        ".".join(path.relative_to(runtime).with_suffix("").parts)
        for path in files
        if path.suffix == ".py"
    ]
    program = f"import sys\nfor name in {modules}: __import__(name)\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    environment = {"PYTHONPATH": str(runtime)}
    run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    loaded = set(run.stdout.split())
    assert HEAVY & loaded == set()
    assert "dreambooth.errors" in loaded


def test_ray_trains_own_processes_load_none_of_what_only_a_worker_needs() -> None:
    program = "import sys, dreambooth.training.entry\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    environment = {"PYTHONPATH": str(ROOT / "runtime")}
    run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    assert HEAVY & set(run.stdout.split()) == set()


@pytest.mark.parametrize(
    ("folder", "package", "known"),
    [("runtime", "dreambooth", "torch"), ("operator", "dreambooth_operator", "kopf")],
)
def test_what_a_package_imports_is_what_it_asks_for(folder: str, package: str, known: str) -> None:
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    optional = project.get("optional-dependencies", {}).values()
    lines = [*project["dependencies"], *itertools.chain.from_iterable(optional)]
    asked = {canonicalize_name(Requirement(line).name) for line in lines}
    homes = metadata.packages_distributions()
    imported = {
        module
        for _, text in texts(f"{folder}/{package}/**/*.py")
        for node in ast.walk(ast.parse(text))
        for module in _imported(node)
        if module not in sys.stdlib_module_names and module != package
    }
    missing = {
        module
        for module in imported
        if asked.isdisjoint(canonicalize_name(home) for home in homes.get(module, []))
    }
    assert missing == set()
    assert known in imported


def test_the_operator_starts_without_the_libraries_that_train() -> None:
    program = "import sys\nimport dreambooth_operator.main\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "operator")},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    loaded = set(run.stdout.split())
    assert (HEAVY | {"dreambooth", "kubernetes"}) & loaded == set()
    assert "dreambooth_operator.service" in loaded


def test_a_changed_requirement_makes_its_locks_stale(tmp_path: Path) -> None:
    for path in tracked("requirements", "*/pyproject.toml"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text())
    assert locks.stale_locks(tmp_path) == []

    asked = tmp_path / "requirements" / "dev.in"
    asked.write_text(asked.read_text() + "# a remark\n")
    assert locks.stale_locks(tmp_path) == []

    asked.write_text(asked.read_text() + "one-more-tool\n")
    assert locks.stale_locks(tmp_path) == ["requirements/dev.txt"]


def test_a_picture_that_notice_does_not_cover_is_found() -> None:
    notice = "Photos\nFiles: examples/*\n"
    files = ["examples/photos/robot/0.png", "docs/found-somewhere.jpg", "docs/text.md"]
    (finding,) = licences.works_without_notice(notice, files)
    assert finding.startswith("docs/found-somewhere.jpg: ")


def _asserts(node: ast.AST) -> bool:
    """Whether a node can fail a test: an assertion, an expected error, a helper that asserts."""
    if isinstance(node, ast.Assert):
        return not isinstance(node.test, ast.Constant)
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name.startswith("assert_") or name in ("raises", "warns", "fail", "eventually")


def _imported(node: ast.AST) -> list[str]:
    """Top-level names of the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.partition(".")[0]]
    return []


def _anchors(markdown: str) -> set[str]:
    """The anchors that headings of a document get on the usual hosts."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", markdown, flags=re.S), re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def _targets() -> set[str]:
    """Every target a person can ask make for."""
    return {
        target
        for _, text in texts("Makefile", "tools/**/*.mk")
        for line in re.findall(r"^\.PHONY: (.+)$", text, re.M)
        for target in line.split()
    }
