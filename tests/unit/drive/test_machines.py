"""`dreambooth drive` on four Ray nodes: a head without CPUs, two that train, one that draws."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dreambooth.errors import ExitCode
from dreambooth.pipeline.placement import DRAWING, TRAINING
from tests.unit.drive.cluster_api import ClusterApi
from tests.unit.drive.machines import Machines, machines

STEPS, EVERY = 120, 20
SAMPLER = "dpmsolver++"
# Past the first checkpoint, and far from the end.
MIDDLE = EVERY + 5
PHOTOS = Path(__file__).parents[3] / "examples" / "subjects" / "robot" / "photos"

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Machines]:
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        machines(Path(folder), [TRAINING, TRAINING, DRAWING]) as started,
    ):
        yield started


class Pod:
    """The head pod of one job: its mounts, its API server, its driver."""

    def __init__(self, folder: Path, cluster: Machines, model: Path) -> None:
        self._folder, self._cluster = folder, cluster
        self.api = ClusterApi(folder)
        self.workspace = folder / "workspace"
        shutil.copytree(PHOTOS, self.workspace / "photos")
        shutil.copytree(model, self.workspace / "tiny")
        self._job = folder / "job.json"
        self._job.write_text(json.dumps(_document()))

    def drive(self, attempt: int = 1, **environment: str) -> subprocess.Popen[str]:
        """Starts the driver of a try."""
        command = [sys.executable, "-c", PROGRAM, str(self.api.account), "drive", str(self._job)]
        return subprocess.Popen(
            command,
            env={
                **self._cluster.environment,
                "DREAMBOOTH_WORKSPACE": str(self.workspace),
                "DREAMBOOTH_PROGRESS_CONFIGMAP": "rex-progress",
                "DREAMBOOTH_NAMESPACE": "team",
                "DREAMBOOTH_PROGRESS_INTERVAL": "0.2",
                "DREAMBOOTH_ATTEMPT": str(attempt),
                "DREAMBOOTH_GPUS": "3",
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT": str(self.api.port),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for_step(self, step: int, attempt: int = 1) -> None:
        """Until training is there."""
        self.api.wait_for(
            lambda record: (
                record["attempt"] == attempt and record["progress"].get("step", 0) >= step
            ),
            seconds=300.0,
        )

    @property
    def folder(self) -> Path:
        """The job's folder on the workspace."""
        return self.workspace / "jobs" / "rex-0a1b"


# The command, for which the account's folder is where the kubelet would have mounted it.
PROGRAM = """
import sys
from pathlib import Path
from dreambooth.cli.main import main
from dreambooth.drive import api_server
api_server.ACCOUNT = Path(sys.argv.pop(1))
main()
"""


def _document() -> dict[str, Any]:
    return {
        "apiVersion": "dreambooth.dev/v1alpha1",
        "kind": "DreamBoothJob",
        "metadata": {"name": "rex", "namespace": "team", "uid": "0a1b"},
        "spec": {
            "subject": {"class": "robot", "photos": {"path": "photos"}},
            "model": {"path": "tiny"},
            "classImages": {"count": 4, "steps": 2, "guidance": 1, "scheduler": SAMPLER},
            "training": {"steps": STEPS, "batchSize": 2, "checkpointEvery": EVERY, "keep": "last"},
            "generation": {
                "prompts": ["photo of a {token} {class}"],
                "imagesPerPrompt": 2,
                "steps": 2,
                "scheduler": SAMPLER,
            },
            "evaluation": {"imagesPerPrompt": 2},
            "cluster": {"workers": 2},
        },
    }


@pytest.fixture
def pod(
    tmp_path: Path,
    cluster: Machines,
    tiny_model: Path,
    assert_valid: Callable[[dict[str, Any]], None],
) -> Iterator[Pod]:
    """A pod, all of whose records are valid."""
    made = Pod(tmp_path, cluster, tiny_model)
    yield made
    for record in made.api.records:
        assert_valid(record)
    made.api.close()


def test_a_job_whose_worker_is_killed_goes_on_from_its_checkpoint_and_tells_so(
    pod: Pod, cluster: Machines
) -> None:
    driver = pod.drive()
    pod.wait_for_step(MIDDLE)
    cluster.processes("RayTrainWorker")[0].kill()
    output, _ = driver.communicate()
    assert driver.returncode == ExitCode.DONE, output
    last = pod.api.records[-1]
    assert last["state"] == "Succeeded"
    assert last["resumedFromStep"] % EVERY == 0
    assert last["resumedFromStep"] >= EVERY
    assert [stage["state"] for stage in last["stages"]] == ["Succeeded"] * 5
    assert last["progress"]["percent"] == 100
    assert last["gpuSeconds"] > 0
    assert (pod.workspace / last["outputs"]["report"]).is_file()
    result = json.loads((pod.folder / "result.json").read_text())
    # Two processes of twenty are no measurement of the job's memory.
    assert not result["peakMemoryBytes"]
    assert len(result["training"]["losses"]) == STEPS
