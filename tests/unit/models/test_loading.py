"""Weights are read as they are stored, and converted where they go."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dreambooth.models.load import load_model
from dreambooth.models.loading import move, stored_dtype
from tests.tiny_families import make_tiny_xl

HALF, BRAIN, FULL = torch.float16, torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("parts", "dtype"),
    [
        ([{"a": HALF, "b": HALF}], HALF),
        ([{"a": BRAIN}, {"b": BRAIN}], BRAIN),
        ([{"a": FULL}], FULL),
        ([{"a": HALF, "b": FULL}], FULL),
        ([{"a": HALF}, {"b": BRAIN}], FULL),
        ([{"a": torch.float64}], FULL),
        ([], FULL),
    ],
)
def test_the_type_of_files_is_theirs_unless_they_mix(
    tmp_path: Path, parts: list[dict[str, torch.dtype]], dtype: torch.dtype
) -> None:
    for number, part in enumerate(parts):
        tensors = {name: torch.ones(2, dtype=kind) for name, kind in part.items()}
        save_file(tensors, tmp_path / f"part-{number}.safetensors", metadata={"format": "pt"})
    assert stored_dtype(tmp_path) == dtype


def test_weights_and_buffers_are_converted_and_whole_numbers_are_not() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    move(network, torch.device("cpu"), BRAIN)
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    assert types.pop("1.num_batches_tracked") == torch.int64
    assert set(types.values()) == {BRAIN} and len(types) == 6
    move(network, torch.device("meta"), None)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}
    assert network.state_dict()["0.weight"].dtype == BRAIN


def test_a_model_is_loaded_as_it_is_stored_and_keeps_its_values(tmp_path: Path) -> None:
    folder = make_tiny_xl(tmp_path / "model")
    for file in folder.rglob("*.safetensors"):
        halved = {name: tensor.half() for name, tensor in load_file(file).items()}
        save_file(halved, file, metadata={"format": "pt"})
    stored, wide = load_model(folder, None), load_model(folder)
    weights = dict(wide.denoiser.named_parameters())
    assert {weight.dtype for weight in weights.values()} == {FULL}
    for name, weight in stored.denoiser.named_parameters():
        assert weight.dtype == HALF and torch.equal(weight.float(), weights[name])
    assert {p.dtype for e in stored.text_encoders for p in e.parameters()} == {HALF}
