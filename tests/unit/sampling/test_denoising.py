"""Replaying the denoiser; the graphs themselves are tested where there is a GPU."""

import logging

import pytest
import torch
from torch import Tensor

from dreambooth.models.conditioning import Conditioning
from dreambooth.sampling import denoising
from dreambooth.sampling.denoising import GraphedDenoiser


class _FakeGraph:
    """Stands for a graph: computes when it is replayed."""

    recorded: list[tuple[int, object]]
    broken = False

    def __init__(
        self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, pool: object
    ) -> None:
        self.pool = "pool"
        self.recorded.append((len(latents), pool))

    def warm_up(self, denoiser: denoising.Denoiser, guidance: float) -> None:
        self._call = denoiser, guidance

    def record(self, denoiser: denoising.Denoiser, guidance: float) -> None:
        if self.broken:
            raise RuntimeError("operation not permitted when stream is capturing")

    def replay(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        denoiser, guidance = self._call
        return denoiser(latents, timestep, conditioning, guidance)


@pytest.fixture
def fake_graph(monkeypatch: pytest.MonkeyPatch) -> type[_FakeGraph]:
    monkeypatch.setattr(_FakeGraph, "recorded", [], raising=False)
    monkeypatch.setattr(denoising, "_Graph", _FakeGraph)
    return _FakeGraph


def shifted(
    latents: Tensor, timestep: Tensor, conditioning: Conditioning, guidance: float
) -> Tensor:
    """Stands for a model."""
    return latents + timestep + guidance


def call(denoiser: GraphedDenoiser, rows: int, guidance: float = 3.0) -> Tensor:
    conditioning = Conditioning(torch.zeros(2 * rows, 4, 4))
    return denoiser(torch.ones(rows, 1, 2, 2), torch.tensor(5), conditioning, guidance)


def test_a_shape_is_recorded_once_and_all_share_their_memory(
    fake_graph: type[_FakeGraph],
) -> None:
    denoiser = GraphedDenoiser(shifted)
    for rows in (16, 16, 15, 16, 15):
        assert call(denoiser, rows).unique().tolist() == [9.0]
    assert fake_graph.recorded == [(16, None), (15, "pool")]


def test_another_guidance_is_another_graph(fake_graph: type[_FakeGraph]) -> None:
    denoiser = GraphedDenoiser(shifted)
    assert call(denoiser, 2, 3.0).unique().tolist() == [9.0]
    assert call(denoiser, 2, 7.0).unique().tolist() == [13.0]
    assert len(fake_graph.recorded) == 2


def test_what_was_released_is_recorded_again(fake_graph: type[_FakeGraph]) -> None:
    denoiser = GraphedDenoiser(shifted)
    call(denoiser, 2)
    denoiser.release()
    call(denoiser, 2)
    assert fake_graph.recorded == [(2, None), (2, None)]


def test_a_model_that_cannot_be_recorded_is_called(
    fake_graph: type[_FakeGraph],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(fake_graph, "broken", True)
    # Libraries that tests before this one have run may have switched loggers off.
    monkeypatch.setattr(denoising._log, "disabled", False)
    caplog.set_level(logging.WARNING, logger=denoising._log.name)
    denoiser = GraphedDenoiser(shifted)
    assert [call(denoiser, rows).unique().tolist() for rows in (2, 2, 3)] == [[9.0]] * 3
    assert len(fake_graph.recorded) == 1
    assert "without CUDA graphs" in caplog.text
