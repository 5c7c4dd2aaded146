"""Programs are built once for what determines them, and only whole builds are ever seen."""

import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from localcluster import binaries, locking
from localcluster.binaries import Module
from localcluster.errors import ClusterError

EVERY = ("one", "two", "alone")
# Stands in for Go: `build` writes the program that -o names and tells what it was asked for.
GO = """#!/bin/sh
case "$1" in
  env) echo go1.26.1; exit;;
esac
echo "$@" >> {calls}
test ! -e {broken}-"$(basename "$PWD")" || {{ echo "cannot find package"; exit 1; }}
while [ "$1" != -o ]; do shift; done
sleep 0.2
case "$2" in
  */) for name in one two; do echo program > "$2$name"; done;;
  *) echo program > "$2";;
esac
"""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Go in the first folder of PATH, and two modules; returns the folder of all."""
    for name in ("pair", "single"):
        (tmp_path / "modules" / name).mkdir(parents=True)
        (tmp_path / "modules" / name / "go.mod").write_text("require example.com/x v1.2.3\n")
    monkeypatch.setattr(binaries, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(binaries, "MODULES", tmp_path / "modules")
    monkeypatch.setattr(binaries, "BINARIES", tmp_path / "cache" / "lock")
    pair = Module("pair", {"one": "./one", "two": "./two"})
    single = Module("single", {"alone": "."}, "example.com/x", {"main.Version": "{version}"})
    monkeypatch.setattr(binaries, "ALL", (pair, single))
    monkeypatch.setattr(binaries, "PROGRAMS", {"one": pair, "two": pair, "alone": single})
    install_go(tmp_path, monkeypatch, GO.format(calls=tmp_path / "calls", broken=tmp_path / "no"))
    return tmp_path


def install_go(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a Go first on PATH, and forget what is known of another."""
    program = folder / "bin" / "go"
    program.parent.mkdir(exist_ok=True)
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    binaries._go_version.cache_clear()
    binaries.output_folder.cache_clear()


def builds(folder: Path) -> list[str]:
    """The builds that were asked for."""
    calls = folder / "calls"
    return calls.read_text().splitlines() if calls.exists() else []


def together(*actions: Callable[[], object]) -> None:
    """Do things at the same time."""
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)


def test_every_program_of_a_module_is_built_at_the_first_wish_for_one(go: Path) -> None:
    assert binaries.ensure(["one"])
    assert binaries.path("one").read_text() == "program\n"
    assert binaries.path("two").exists()
    assert not binaries.path("alone").exists()
    assert not binaries.ensure(["two"])
    assert len(builds(go)) == 1


def test_the_pinned_version_is_what_the_program_reports(go: Path) -> None:
    binaries.ensure(["alone"])
    assert "-X main.Version=v1.2.3" in builds(go)[0]


@pytest.mark.parametrize("changed", ["go.mod", "go.sum", "part/main.go"])
def test_whatever_determines_a_program_has_it_built_anew(go: Path, changed: str) -> None:
    binaries.ensure(["alone"])
    before = binaries.path("alone")
    file = go / "modules" / "single" / changed
    file.parent.mkdir(exist_ok=True)
    file.write_text("require example.com/x v1.2.4\n")
    binaries.output_folder.cache_clear()
    assert binaries.path("alone") != before
    assert binaries.ensure(["alone"])


def test_two_runs_at_once_build_once(go: Path) -> None:
    together(lambda: binaries.ensure(EVERY), lambda: binaries.ensure(EVERY))
    assert binaries.path("one").exists() and binaries.path("alone").exists()
    assert len(builds(go)) == 2


def test_a_failed_build_says_why_and_leaves_nothing_but_the_others(go: Path) -> None:
    (go / "no-pair").touch()
    with pytest.raises(ClusterError, match="cannot find package"):
        binaries.ensure(EVERY)
    assert not binaries.path("one").parent.exists()
    assert binaries.path("alone").exists()


def test_what_a_killed_build_left_is_swept_away(go: Path) -> None:
    left = go / "cache" / "binaries" / ".pair-x"
    left.mkdir(parents=True)
    binaries.ensure(EVERY)
    folders = {entry.name.rpartition("-")[0] for entry in left.parent.iterdir()}
    assert folders == {"pair", "single"}


def test_without_go_it_says_what_to_install(go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (go / "bin" / "go").unlink()
    with pytest.raises(ClusterError, match=r"Go 1\.26 or newer is needed"):
        binaries.ensure(EVERY)


@pytest.mark.parametrize("version", ["go1.19.8", "devel"])
def test_a_go_that_is_too_old_is_named(
    go: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    install_go(go, monkeypatch, f"#!/bin/sh\necho {version}\n")
    with pytest.raises(ClusterError, match=f"not {version}"):
        binaries.ensure(EVERY)


def test_a_module_that_pins_nothing_is_refused(go: Path) -> None:
    (go / "modules" / "single" / "go.mod").write_text("module x\n")
    with pytest.raises(ClusterError, match=r"does not pin example\.com/x"):
        binaries.ensure(["alone"])


def test_the_repository_pins_the_supported_versions() -> None:
    versions = {module.name: module.version() for module in binaries.ALL if module.pinned}
    assert versions["kubernetes"].startswith("v1.34.")
    assert versions["kuberay"] == "v1.6.2"
    assert versions["helm"].startswith("v3.")
    assert {"etcd", "coredns", "kwok"} <= {module.name for module in binaries.ALL}


def test_a_lock_makes_the_second_wait_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []
    entered, released = threading.Event(), threading.Event()

    def first() -> None:
        with locking.exclusive(tmp_path / "lock"):
            entered.set()
            released.wait(timeout=60)
            order.append("first")

    def second() -> None:
        entered.wait(timeout=60)
        threading.Timer(0.2, released.set).start()
        with locking.exclusive(tmp_path / "lock"):
            order.append("second")

    together(first, second)
    assert order == ["first", "second"]
    assert "waiting for another run" in capsys.readouterr().err


def test_built_programs_can_be_run(go: Path) -> None:
    binaries.ensure(["alone"])
    assert binaries.path("alone").stat().st_mode & stat.S_IXUSR
