"""How a process that computes is set up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dreambooth.sampling.devices import keep_compiled
from dreambooth.workspace.layout import Workspace


def test_pods_share_compiled_kernels_on_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMBOOTH_WORKSPACE", str(tmp_path))
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    keep_compiled()
    assert Path(os.environ["TRITON_CACHE_DIR"]).parent == Workspace(tmp_path).compile


def test_a_folder_that_someone_chose_for_them_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMBOOTH_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    keep_compiled()
    assert os.environ["TRITON_CACHE_DIR"] == "/elsewhere"


def test_without_a_workspace_in_the_environment_nothing_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DREAMBOOTH_WORKSPACE", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    keep_compiled()
    assert "TRITON_CACHE_DIR" not in os.environ


# Pages that the kernel hands out for tensors of 48 MiB made one after another, and how many of
# those bytes the process still has.
TENSORS = """
import os, resource, torch
from dreambooth.sampling.devices import give_memory_back, keep_memory
{}
def held():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.empty(48 * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = held()
faults = [faults(), faults()][1]
kept = held() - before
give_memory_back()
print(faults, kept, held() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told")
def test_what_tensors_give_back_is_taken_again_and_returned_when_asked() -> None:
    plain, keeping = (
        subprocess.run(
            [sys.executable, "-c", TENSORS.format(first)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for first in ("", "keep_memory()")
    )
    assert int(keeping[0]) < int(plain[0]) / 4
    assert int(keeping[1]) >= 48 * 2**20
    assert int(keeping[2]) < 2**22
