"""One run at a time on one job."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dreambooth.errors import InfrastructureError, UserError
from dreambooth.workspace.lock import exclusive, is_locked

HOLDER = """
import sys
from pathlib import Path
from dreambooth.workspace.lock import exclusive
with exclusive(Path(sys.argv[1]), what="job rex"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "job" / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": "runtime", "PATH": ""},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError) as caught, exclusive(path, what="job rex"):
        pass
    assert is_locked(path)
    holder.kill()
    holder.wait()
    assert f"process {holder.pid}" in str(caught.value)
    assert "job rex" in str(caught.value)
    assert "--workspace" in str(caught.value)


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text('{"pid": 1, "host": "gone"}')
    entered = False
    with exclusive(path, what="job rex"):
        entered = True
        assert is_locked(path)
    assert entered
    assert not is_locked(path)


def test_who_is_patient_gets_the_lock_when_its_holder_ends(tmp_path: Path) -> None:
    path, held, release = tmp_path / ".lock", threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive(path, what="job rex"):
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    threading.Timer(0.05, release.set).start()
    with exclusive(path, what="job rex", patience=60.0):
        assert release.is_set()
    holder.join()


def test_patience_ends_with_an_error_that_trying_again_may_mend(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with (
        exclusive(path, what="job rex"),
        pytest.raises(InfrastructureError, match="job rex is being run") as caught,
        exclusive(path, what="job rex", patience=0.01),
    ):
        pass
    assert caught.value.reason == "WorkspaceInUse"
