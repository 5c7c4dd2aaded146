"""The training loop: it learns, pauses, and goes on as if it hadn't."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.unit.model_recipe.builders import CPU
from tools.model.device import Forward, compiled
from tools.model.errors import RecipeError
from tools.model.fitting import Fit, Task
from tools.model.pace import Endless, Minutes, Steps


def a_task(network: nn.Module, identity: str = "one", memory: float = 0.9) -> Task:
    """To double numbers."""

    def loss(chance: torch.Generator) -> Tensor:
        numbers = torch.randn(16, 1, generator=chance)
        error: Tensor = network(numbers) - 2 * numbers
        return error.square().mean()

    return Task(
        name="doubling",
        networks={"one": network},
        loss=loss,
        identity=identity,
        batch=16,
        rate=0.05,
        rise=5,
        least=0.01,
        decay=0.0,
        memory=memory,
    )


def a_network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def test_it_learns(tmp_path: Path) -> None:
    network = a_network()
    fit = Fit(a_task(network), CPU, tmp_path / "fit.pt", seed=0)
    assert fit.run(Steps(300), Endless())
    fit.use_average()
    assert network.weight.item() == pytest.approx(2, abs=0.05)
    assert network.bias.item() == pytest.approx(0, abs=0.05)


def test_pausing_changes_nothing(tmp_path: Path) -> None:
    whole, parted = a_network(), a_network()
    undisturbed = Fit(a_task(whole), CPU, tmp_path / "whole.pt", seed=7)
    assert undisturbed.run(Steps(40), Endless())
    done = [
        Fit(a_task(parted), CPU, tmp_path / "parted.pt", seed=7).run(Steps(40), Steps(15))
        for _ in range(3)
    ]
    assert done == [False, False, True]
    assert torch.equal(whole.weight, parted.weight)
    last = Fit(a_task(parted), CPU, tmp_path / "parted.pt", seed=7)
    undisturbed.use_average()
    last.use_average()
    assert torch.equal(whole.weight, parted.weight)


def test_what_is_finished_is_not_trained_further(tmp_path: Path) -> None:
    network = a_network()
    Fit(a_task(network), CPU, tmp_path / "fit.pt", seed=0).run(Steps(10), Endless())
    again = Fit(a_task(network), CPU, tmp_path / "fit.pt", seed=0)
    weights = network.weight.clone()
    assert again.run(Steps(10), Endless())
    assert again.step == 10
    assert torch.equal(weights, network.weight)


def test_without_memory_the_average_is_the_last_weights(tmp_path: Path) -> None:
    network = a_network()
    fit = Fit(a_task(network, memory=0.0), CPU, tmp_path / "fit.pt", seed=0)
    fit.run(Steps(20), Endless())
    weights = network.weight.clone()
    fit.use_average()
    assert torch.equal(weights, network.weight)


def test_a_checkpoint_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    checkpoint = tmp_path / "fit.pt"
    Fit(a_task(a_network()), CPU, checkpoint, seed=0).run(Steps(5), Endless())
    before = checkpoint.read_bytes()
    with pytest.raises(RecipeError, match="of another training: one, not two"):
        Fit(a_task(a_network(), identity="two"), CPU, checkpoint, seed=0)
    assert checkpoint.read_bytes() == before


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    network = a_network()
    with torch.no_grad():
        network.weight.fill_(torch.inf)
    with pytest.raises(RecipeError, match="the loss is nan"):
        Fit(a_task(network), CPU, tmp_path / "fit.pt", seed=0).run(Steps(100), Endless())


def test_a_pace_is_done_from_one_on() -> None:
    assert Steps(4).share(step=2, seconds=999) == 0.5
    assert Minutes(2).share(step=999, seconds=60) == 0.5
    assert Minutes(0).share(step=0, seconds=0) >= 1
    assert Endless().share(step=10**9, seconds=1e9) == 0


def test_training_goes_on_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(forward: Forward) -> Forward:
        def call(*inputs: Tensor) -> Tensor:
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    double = compiled(lambda numbers: 2 * numbers)
    assert [double(torch.tensor(number)).item() for number in (1, 2)] == [2, 4]


def test_an_error_after_compiling_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda forward: forward)

    def positive(number: Tensor) -> Tensor:
        if number < 0:
            raise ValueError("negative")
        return number

    call = compiled(positive)
    assert call(torch.tensor(1)).item() == 1
    with pytest.raises(ValueError, match="negative"):
        call(torch.tensor(-1))
