"""The bench's job without Ray is the product's, but for Ray."""

from pathlib import Path

import pytest
import torch

from bench.without_ray import main
from dreambooth.pipeline.driver import run_job
from dreambooth.workspace.layout import Workspace
from tests.jobs import a_job, lay_out, write_manifest
from tests.unit.crash.harness import Outcome
from tests.without_ray import without_ray


def test_a_job_without_ray_ends_as_the_products_does(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sums of several threads are others.
    monkeypatch.setenv("DREAMBOOTH_CPU_THREADS", "1")
    ours, benchs = (lay_out(tmp_path / name, tiny_model) for name in ("ours", "benchs"))
    with without_ray():
        run_job(a_job(ours), ours, [])
    threads, repeatable = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    main(write_manifest(benchs), benchs)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(repeatable)
    assert Outcome.of(benchs) == Outcome.of(ours)
    assert Workspace(benchs).job("rex").root.joinpath("timeline.json").is_file()
