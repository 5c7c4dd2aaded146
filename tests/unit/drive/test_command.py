"""`dreambooth drive` as the operator starts it, with a driver that does what a test says."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dreambooth.api.job import Job
from dreambooth.cli.main import main
from dreambooth.drive import api_server
from dreambooth.drive.environment import DriveEnvironment
from dreambooth.errors import BudgetError, InfrastructureError, UserError
from dreambooth.pipeline.progress import Event, EventKind, Listener, StageName
from dreambooth.pipeline.usage import Accounting
from tests.unit.drive.cluster_api import ClusterApi
from tests.unit.drive.conftest import a_job
from tests.unit.drive.test_record import RESULT, begins, started

Script = Callable[[Sequence[Listener]], dict[str, Any]]


class HeadPod:
    """Mounts and environment of a head pod, and the API server it speaks to."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self.api = ClusterApi(folder)
        self.calls: list[tuple[Job, Path, Accounting | None, float]] = []
        self.job_file = folder / "job.json"
        self.job_file.write_text(json.dumps(a_job(limits={"gpuHours": 1}).manifest))
        patch.setattr(api_server, "ACCOUNT", self.api.account)
        self.sets(
            DREAMBOOTH_WORKSPACE=str(folder / "workspace"),
            DREAMBOOTH_PROGRESS_CONFIGMAP="rex-progress",
            DREAMBOOTH_NAMESPACE="team",
            DREAMBOOTH_ATTEMPT="2",
            DREAMBOOTH_GPUS="4",
            DREAMBOOTH_GPU_SECONDS_USED="120.5",
            KUBERNETES_SERVICE_HOST="127.0.0.1",
            KUBERNETES_SERVICE_PORT=str(self.api.port),
            OMP_NUM_THREADS="1",
        )

    def sets(self, **environment: str) -> None:
        for name, value in environment.items():
            self._patch.setenv(name, value)

    def does(self, script: Script) -> None:
        """Makes the pipeline do `script`."""

        def run_job(
            job: Job,
            workspace: Path,
            listeners: Sequence[Listener],
            accounting: Accounting | None = None,
            patience: float = 0.0,
        ) -> dict[str, Any]:
            self.calls.append((job, workspace, accounting, patience))
            return script(listeners)

        module = ModuleType("dreambooth.pipeline.driver")
        vars(module).update(run_job=run_job)
        self._patch.setitem(sys.modules, module.__name__, module)

    def drive(self) -> Result:
        return CliRunner().invoke(main, ["drive", str(self.job_file)])

    @property
    def last(self) -> dict[str, Any]:
        return self.api.records[-1]


@pytest.fixture
def pod(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_valid: Callable[[dict[str, Any]], None],
) -> Iterator[HeadPod]:
    """A pod, all of whose records are valid."""
    handler = signal.getsignal(signal.SIGTERM)
    made = HeadPod(tmp_path, monkeypatch)
    yield made
    for record in made.api.records:
        assert_valid(record)
    made.api.close()
    signal.signal(signal.SIGTERM, handler)


def tell(listeners: Sequence[Listener], *events: Event) -> None:
    for event in events:
        for listener in listeners:
            listener(event)


def succeeds(listeners: Sequence[Listener]) -> dict[str, Any]:
    tell(
        listeners,
        started(),
        begins(StageName.PHOTOS),
        Event(EventKind.STAGE_FINISHED, stage=StageName.PHOTOS, cached=False, seconds=1.0),
        Event(EventKind.JOB_FINISHED, seconds=2.0, message="done", data=RESULT),
    )
    return RESULT


def raises(error: BaseException) -> Script:
    def script(listeners: Sequence[Listener]) -> dict[str, Any]:
        tell(listeners, started(), begins(StageName.TRAIN))
        raise error

    return script


def test_a_job_runs_with_what_the_operator_says_and_its_end_is_told(pod: HeadPod) -> None:
    pod.does(succeeds)
    done = pod.drive()
    assert done.exit_code == 0, done.output
    ((job, workspace, accounting, patience),) = pod.calls
    assert (job.id, workspace) == ("rex-0a1b", pod.folder / "workspace")
    assert accounting == Accounting(attempt=2, gpus=4.0, used=120.5, limit=3600.0)
    assert patience > 0
    assert (pod.last["attempt"], pod.last["state"]) == (2, "Succeeded")
    assert pod.last["quality"]["gapClosed"] == 0.78


def test_the_administrator_s_limit_goes_before_the_manifest_s(pod: HeadPod) -> None:
    pod.sets(DREAMBOOTH_GPU_SECONDS_LIMIT="60")
    pod.does(succeeds)
    pod.drive()
    accounting = pod.calls[0][2]
    assert accounting is not None
    assert accounting.limit == 60.0


@pytest.mark.parametrize(
    ("error", "code", "failure", "reason"),
    [
        (UserError("no photos", reason="NoPhotos"), 2, "user", "NoPhotos"),
        (InfrastructureError("no disk", reason="NoDisk"), 3, "infrastructure", "NoDisk"),
        (BudgetError("used up"), 4, "budget", "GpuHoursReached"),
        (ValueError("a defect"), 3, "infrastructure", "Unexpected"),
    ],
)
def test_a_failure_is_told_with_its_class_and_exits_with_its_code(
    pod: HeadPod, error: Exception, code: int, failure: str, reason: str
) -> None:
    pod.does(raises(error))
    done = pod.drive()
    assert done.exit_code == code
    assert "Traceback" not in done.output
    assert pod.last["state"] == "Failed"
    assert (pod.last["failure"]["class"], pod.last["failure"]["reason"]) == (failure, reason)
    assert pod.last["stages"][2]["state"] == "Failed"


def test_a_defect_leaves_its_traceback_in_the_job_s_log(pod: HeadPod) -> None:
    log = pod.folder / "workspace" / "jobs" / "rex-0a1b" / "log.txt"
    log.parent.mkdir(parents=True)
    pod.does(raises(ValueError("a defect")))
    pod.drive()
    assert log.read_text().count("ValueError: a defect") == 1
    assert str(log) in pod.last["failure"]["message"]


@pytest.mark.parametrize("text", ["", "{", '{"kind": "Pod"}', '{"apiVersion": "v1", "kind": []}'])
def test_a_manifest_that_cannot_be_read_is_told_as_well(pod: HeadPod, text: str) -> None:
    pod.job_file.write_text(text)
    done = pod.drive()
    assert done.exit_code == 2
    assert pod.last["failure"]["class"] == "user"
    assert pod.calls == []


def test_a_signal_is_told_at_once_and_a_second_one_does_not_break_the_clean_up(
    pod: HeadPod,
) -> None:
    def stopped(listeners: Sequence[Listener]) -> dict[str, Any]:
        tell(listeners, started(), begins(StageName.TRAIN))
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            pod.api.wait_for(lambda record: record["state"] == "Interrupted")
            os.kill(os.getpid(), signal.SIGTERM)
            raise
        return {}

    pod.does(stopped)
    assert pod.drive().exit_code == 130
    assert pod.last["state"] == "Interrupted"
    assert "failure" not in pod.last


def test_a_job_runs_all_the_same_when_the_api_server_refuses(pod: HeadPod) -> None:
    pod.api.tokens = set()
    pod.api.refusals = [403]

    def heals(listeners: Sequence[Listener]) -> dict[str, Any]:
        succeeds(listeners)
        pod.api.tokens = {"first"}
        return RESULT

    pod.does(heals)
    done = pod.drive()
    assert done.exit_code == 0
    assert pod.last["state"] == "Succeeded"
    assert "The progress cannot be told" in done.output


def test_without_a_config_map_nobody_is_told(pod: HeadPod) -> None:
    pod.sets(DREAMBOOTH_PROGRESS_CONFIGMAP="")
    pod.does(succeeds)
    assert pod.drive().exit_code == 0
    assert pod.api.records == []


def test_people_who_ask_for_help_are_not_shown_the_operator_s_command() -> None:
    runner = CliRunner()
    assert "drive" not in runner.invoke(main, ["--help"]).output
    assert "For the operator" in runner.invoke(main, ["drive", "--help"]).output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DREAMBOOTH_ATTEMPT", "first"),
        ("DREAMBOOTH_ATTEMPT", "0"),
        ("DREAMBOOTH_PROGRESS_INTERVAL", "0"),
        ("DREAMBOOTH_GPUS", "-1"),
        ("DREAMBOOTH_GPU_SECONDS_USED", "nan"),
        ("DREAMBOOTH_GPU_SECONDS_LIMIT", "inf"),
    ],
)
def test_a_variable_that_is_no_number_is_named(name: str, value: str) -> None:
    with pytest.raises(InfrastructureError, match=f"{name}: '{value}'") as raised:
        DriveEnvironment.read({name: value})
    assert raised.value.reason == "BadEnvironment"


def test_variables_that_are_left_out_or_empty_have_defaults() -> None:
    empty = {"DREAMBOOTH_ATTEMPT": "", "DREAMBOOTH_GPUS": "", "DREAMBOOTH_NAMESPACE": ""}
    assert DriveEnvironment.read(empty) == DriveEnvironment.read({}) == DriveEnvironment()
