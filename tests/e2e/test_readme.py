"""Someone who types what the README says gets pictures."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.dreambooth import JobUnderTest
from tests.e2e.kube import ROOT, Cluster, Kubectl, tool
from tests.e2e.readme import commands
from tests.e2e.release import VALUES, Release
from tests.e2e.team import assert_pictures

HEADING = "On Kubernetes"


@pytest.fixture
def nothing_installed(cluster: Cluster) -> Iterator[Release]:
    """A cluster without the operator, before and after."""
    release = Release.of(cluster)
    release.uninstall()
    yield release
    release.uninstall()


@pytest.fixture
def desk(tmp_path: Path, cluster: Cluster, kubectl: Kubectl) -> tuple[Path, dict[str, str]]:
    """A clone of the repository, and a shell with kubectl, helm and a Python to install into."""
    clone = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "charts", "crds", "examples", "plugin"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    shutil.copy(VALUES, clone / "my-cluster.yaml")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    folders = [str(tmp_path / "venv" / "bin")]
    if cluster.local:
        folders += [
            str(Path(tool("binaries", program).split()[1]).parent)
            for program in ("kubectl", "helm")
        ]
    # The commands name no namespace: one's own is in the kubeconfig.
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copy(cluster.kubectl.kubeconfig, kubeconfig)
    own = Kubectl(kubectl.program, str(kubeconfig))
    own("config", "set-context", "--current", f"--namespace={kubectl.namespace}")
    path = os.pathsep.join([*folders, os.environ["PATH"]])
    return clone, {**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig)}


@pytest.mark.timeout(1800)
def test_the_five_commands_of_the_readme_end_with_pictures(
    desk: tuple[Path, dict[str, str]], kubectl: Kubectl, nothing_installed: Release
) -> None:
    clone, environment = desk
    typed = commands((ROOT / "README.md").read_text(encoding="utf-8"), HEADING)
    assert len(typed) == 5
    said = ""
    for command in typed:
        done = subprocess.run(
            command,
            shell=True,
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1500,
            check=False,
        )
        said += f"$ {command}\n{done.stdout}"
        if done.returncode:
            story = JobUnderTest("robot", kubectl, nothing_installed).story()
            pytest.fail(f"{said}\nexit status {done.returncode}\n{story}")
    assert_pictures(clone / "pictures", least=4)
