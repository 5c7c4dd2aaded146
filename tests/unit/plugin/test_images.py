"""`kubectl dreambooth images`, `contact-sheet` and `logs`: what comes out of the volume."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kubectl_dreambooth
from kubectl_dreambooth.copying import copy_out
from kubectl_dreambooth.errors import PluginError
from kubectl_dreambooth.job import JobView
from kubectl_dreambooth.reader import Shell, reader
from tests.unit.plugin.conftest import FOLDER, Cluster, a_job, plugin, png, succeeded, training


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def results(cluster: Cluster) -> dict[str, bytes]:
    """What `images` copies."""
    found = files_in(cluster.folder)
    return {name: data for name, data in found.items() if not name.startswith(("model", "log.txt"))}


def test_images_copies_pictures_sheet_and_report_and_leaves_no_pod(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add(succeeded())
    done = plugin("images", "rex", "--output", "out")
    assert done.exit_code == 0, done.output
    assert files_in(tmp_path / "out") == results(cluster)
    assert done.stdout == "6 files in out.\n"
    assert cluster.pods == []


def test_the_model_comes_along_when_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add(succeeded())
    plugin("images", "rex", "--model")
    assert files_in(tmp_path / "rex")["model/unet.safetensors"] == b"weights"


def test_a_second_copy_fetches_only_what_is_missing_or_wrong(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add(succeeded())
    plugin("images", "rex", "-o", "out")
    (tmp_path / "out" / "report.html").write_text("half")
    (tmp_path / "out" / "mine.txt").write_text("mine")
    again = plugin("images", "rex", "-o", "out")
    assert again.stdout == "6 files in out, 5 of them were here already.\n"
    assert files_in(tmp_path / "out") == results(cluster) | {"mine.txt": b"mine"}


@pytest.mark.parametrize("cut", [0, 700, 3000])
def test_a_connection_that_breaks_is_tried_again_and_leaves_only_whole_files(
    cluster: Cluster, tmp_path: Path, cut: int
) -> None:
    cluster.add(succeeded())
    cluster.scripts(cut=cut)
    done = plugin("images", "rex", "-o", "out")
    assert done.exit_code == 0, done.output
    assert files_in(tmp_path / "out") == results(cluster)


def test_what_cannot_be_fetched_is_an_error_and_the_pod_is_gone_all_the_same(
    cluster: Cluster,
) -> None:
    cluster.add(succeeded())
    cluster.scripts(fail={"exec": "error: Internal error occurred: connection reset by peer"})
    done = plugin("images", "rex")
    assert done.exit_code == 1
    assert "connection reset by peer" in done.stderr
    assert cluster.pods == []


def test_a_pod_that_does_not_start_says_why_and_is_gone(cluster: Cluster) -> None:
    cluster.add(succeeded())
    why = 'persistentvolumeclaim "team-volume" not found'
    cluster.scripts(
        fail={"wait": "error: timed out waiting for the condition on pods/rex-reader"},
        podStatus={"conditions": [{"type": "PodScheduled", "message": why}]},
    )
    done = plugin("images", "rex")
    assert done.exit_code == 1
    assert why in done.stderr
    assert cluster.pods == []


def test_being_ended_in_the_middle_takes_the_pod_along(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add(succeeded())
    # The reader's listing never ends, until the program is told to.
    fifo = cluster.folder / "images" / "pipe"
    os.mkfifo(fifo)
    (cluster.folder / "report.html").unlink()
    os.mkfifo(cluster.root / "started")
    slow = cluster.root / "slow-kubectl"
    slow.write_text(
        f'#!/bin/sh\nif [ "$1" = exec ]; then echo > "{cluster.root}/started"; exec sleep 600; fi\n'
        f'exec "{cluster.program}" "$@"\n'
    )
    slow.chmod(0o755)
    running = subprocess.Popen(
        [sys.executable, "-m", "kubectl_dreambooth", "images", "rex"],
        env={**os.environ, "KUBECTL": str(slow), "PYTHONPATH": _plugin_folder()},
        stderr=subprocess.PIPE,
        text=True,
    )
    (cluster.root / "started").read_text()
    assert len(cluster.pods) == 1
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert told.endswith("Stopped.\n")
    assert cluster.pods == []


def _plugin_folder() -> str:
    return str(Path(kubectl_dreambooth.__file__).parents[1])


def test_the_reader_may_only_read_and_fits_restricted_pod_security(cluster: Cluster) -> None:
    job = JobView(succeeded())
    with reader(cluster.kubectl, job):
        (name,) = cluster.pods
        pod = json.loads((cluster.root / "pods" / name).read_text())
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "0a1b"
    assert spec["volumes"][0]["persistentVolumeClaim"] == {
        "claimName": "team-volume",
        "readOnly": True,
    }
    assert container["volumeMounts"][0]["readOnly"] is True
    assert spec["automountServiceAccountToken"] is False
    assert spec["activeDeadlineSeconds"] == 3600
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


@pytest.mark.parametrize("job", [training(40), a_job("Failed")])
def test_a_job_without_results_is_said_to_have_none(cluster: Cluster, job: dict[str, Any]) -> None:
    cluster.add(job)
    done = plugin("images", "rex")
    assert done.exit_code == 1
    assert "has no results" in done.stderr
    assert [call[0] for call in cluster.calls] == ["get"]


def test_a_job_that_ran_out_of_gpu_time_has_a_model_and_no_pictures(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add(a_job("Failed", outputs={"folder": FOLDER, "model": f"{FOLDER}/model"}))
    refused = plugin("images", "rex")
    assert refused.exit_code == 1
    assert "Its model comes with --model" in refused.stderr
    plugin("images", "rex", "--model")
    assert files_in(tmp_path / "rex") == {"model/unet.safetensors": b"weights"}


@pytest.mark.parametrize("folder", ["/etc", "../other", "jobs/../../etc", ""])
def test_a_folder_that_leads_elsewhere_is_refused(
    cluster: Cluster, tmp_path: Path, folder: str
) -> None:
    cluster.add_head()
    with pytest.raises(PluginError, match="outside its folder"):
        copy_out(Shell(cluster.kubectl, "rex-head", "c"), folder, ["images"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_and_pipes_on_the_volume_stay_there(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add(succeeded())
    expected = results(cluster)
    (cluster.folder / "images" / "passwd").symlink_to("/etc/passwd")
    os.mkfifo(cluster.folder / "images" / "pipe")
    plugin("images", "rex", "-o", "out")
    assert files_in(tmp_path / "out") == expected


def test_the_contact_sheet_is_drawn_on_the_terminal(cluster: Cluster) -> None:
    cluster.add(succeeded())
    shown = plugin("contact-sheet", "rex", "--as", "blocks")
    assert shown.exit_code == 0, shown.output
    assert "\x1b[38;2;200;30;30;48;2;200;30;30m▀" in shown.stdout
    assert cluster.pods == []


def test_the_contact_sheet_is_saved_where_there_is_no_terminal(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.add(succeeded())
    refused = plugin("contact-sheet", "rex")
    assert refused.exit_code == 1
    assert "--output FILE" in refused.stderr
    saved = plugin("contact-sheet", "rex", "--output", "out/sheet.png")
    assert saved.stdout == "out/sheet.png\n"
    assert files_in(tmp_path / "out") == {"sheet.png": png()}


def test_the_log_of_a_running_job_is_read_in_its_head_pod(cluster: Cluster) -> None:
    cluster.add(training(40))
    cluster.add_head()
    assert plugin("logs", "rex").stdout == "one\ntwo\n"
    assert "create" not in [call[0] for call in cluster.calls]


def test_the_log_of_a_job_that_is_over_is_read_by_a_pod_that_goes(cluster: Cluster) -> None:
    cluster.add(succeeded())
    assert plugin("logs", "rex").stdout == "one\ntwo\n"
    assert "create" in [call[0] for call in cluster.calls]
    assert cluster.pods == []


def test_following_a_log_goes_on_in_the_next_try_where_it_was(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add(training(40))
    cluster.add_head()

    def a_while_passes(seconds: float) -> None:
        # The first head has gone; the next try writes, and succeeds.
        with (cluster.folder / "log.txt").open("a") as log:
            log.write("three\n")
        cluster.add(succeeded())

    monkeypatch.setattr("kubectl_dreambooth.logs.follow_log.__defaults__", (a_while_passes,))
    assert plugin("logs", "rex", "--follow").stdout == "one\ntwo\nthree\n"
    assert f"/workspace/{FOLDER}/log.txt" in cluster.calls[-2]
