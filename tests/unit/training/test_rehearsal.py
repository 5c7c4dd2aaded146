"""A step's kernels are compiled while workers wait for their plan."""

import shutil
from pathlib import Path

import pytest
import torch

from dreambooth.kernels.rehearsal import rehearse
from dreambooth.training import rehearsal
from dreambooth.training.group import Preview
from dreambooth.training.rehearsal import fits_beside, rehearse_training, take_steps
from tests.compiling import kernels_asked_for
from tests.tiny_families import make_tiny_sd3, make_tiny_xl

OPTIMIZER = {"_adamw", "_prepare", "_square_sums"}
BACKWARD = {"_backward", "_column_sums", "_halve", "_sum_rows"}


def preview(folder: Path, **changes: object) -> Preview:
    settings: dict[str, object] = {"text_encoder": True, "lora_rank": None, "pairs": 2}
    return Preview(str(folder), **{**settings, **changes})  # type: ignore[arg-type]


def test_a_step_is_gone_through_without_weights_or_pictures(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = kernels_asked_for(monkeypatch, tmp_path / "cache")
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights = list(folder.rglob("*.safetensors"))
    for file in weights:
        assert file.stat().st_size > 0
        file.unlink()
    assert weights
    rehearse("a step", lambda: take_steps(preview(folder)))
    assert asked >= {"_forward", "_double"} | BACKWARD | OPTIMIZER


def test_adapters_have_kernels_of_their_own(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = kernels_asked_for(monkeypatch, tmp_path)
    rehearse("a step", lambda: take_steps(preview(tiny_model, lora_rank=4, pairs=1)))
    # Frozen biases have no gradients to be added up.
    assert "_column_sums" not in asked and asked >= OPTIMIZER


@pytest.mark.parametrize("make", [make_tiny_xl, make_tiny_sd3])
def test_other_families_have_steps_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object
) -> None:
    asked = kernels_asked_for(monkeypatch, tmp_path / "cache")
    folder = make(tmp_path / "model")  # type: ignore[operator]
    rehearse("a step", lambda: take_steps(preview(folder, lora_rank=4)))
    assert asked >= OPTIMIZER


def test_without_a_gpu_there_is_nothing_to_rehearse(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(rehearsal, "rehearse", lambda what, _: asked.append(what))
    rehearse_training(preview(tiny_model))
    assert not asked
    monkeypatch.setattr(rehearsal, "this_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(rehearsal, "check_available", lambda device: None)
    rehearse_training(preview(tiny_model))
    assert len(asked) == 1 and "block_out_channels" in asked[0]


@pytest.mark.parametrize("rank", [None, 4])
def test_a_training_says_whether_it_needs_what_others_hold(
    tiny_model: Path, rank: int | None
) -> None:
    wanted = preview(tiny_model, lora_rank=rank)
    assert fits_beside(wanted, 2**40) and not fits_beside(wanted, 2**33)
