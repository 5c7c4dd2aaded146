"""How a process that computes is set up."""

import os
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
