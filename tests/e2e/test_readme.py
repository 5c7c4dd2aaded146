"""Someone who types what the README says gets pictures."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.dreambooth import EXAMPLE, TWO_WORKERS, JobUnderTest, stage
from tests.e2e.kube import ROOT, Cluster, Kubectl, eventually, tool
from tests.e2e.readme import commands
from tests.e2e.release import VALUES, Release
from tests.e2e.team import SOON, assert_pictures, machines

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
def test_the_five_commands_of_the_readme_end_with_pictures_and_figures(
    desk: tuple[Path, dict[str, str]], kubectl: Kubectl, nothing_installed: Release
) -> None:
    clone, environment = desk
    ask_for_two_workers(clone / EXAMPLE.relative_to(ROOT) / "job.yaml")
    job = JobUnderTest("robot", kubectl, nothing_installed)
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
            pytest.fail(f"{said}\nexit status {done.returncode}\n{job.story()}")
    status = job.status
    assert [entry["state"] for entry in status["stages"]] == ["Succeeded"] * 5
    assert status["quality"]["subjectFidelity"] > status["quality"]["baseFidelity"]
    assert status["gpuSeconds"] > 0
    assert status["cost"]["amount"] > 0
    assert [attempt["number"] for attempt in status["attempts"]] == [1]
    drawn = stage(status, "generate")["done"]
    assert drawn >= 4
    assert_pictures(clone / "pictures", drawn)
    assert {"AttemptStarted", "Succeeded"} <= {
        event["reason"] for event in kubectl.list("events") if concerns(event, job)
    }
    eventually("its machines are given back", lambda: not machines(job), SOON)


def ask_for_two_workers(manifest: Path) -> None:
    """What the README says to add for it."""
    job = yaml.safe_load(manifest.read_text(encoding="utf-8"))
    job["spec"]["cluster"] = dict(TWO_WORKERS)
    manifest.write_text(yaml.safe_dump(job), encoding="utf-8")


def concerns(event: dict[str, Any], job: JobUnderTest) -> bool:
    """Whether an event is about the job itself."""
    about = event["involvedObject"]
    return (about["kind"], about["name"]) == ("DreamBoothJob", job.name)
