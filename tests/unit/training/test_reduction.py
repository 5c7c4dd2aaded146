"""Several workers take the steps that one would have taken."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dreambooth.training import reduction
from dreambooth.training.checkpoint import CheckpointStore
from dreambooth.training.reduction import BucketReduction
from tests.unit.training.conftest import pictures
from tests.unit.training.group import train
from tests.unit.training.side_by_side import side_by_side


class Group:
    """Starts groups of worker processes on one set of pictures."""

    def __init__(self, model: Path, folder: Path) -> None:
        pictures(folder / "photos", 3)
        pictures(folder / "class", 5)
        self._folder = folder
        self._model = model
        self._started = 0

    def train(self, size: int, **given: Any) -> list[dict[str, Any]]:
        """What each of `size` workers says after four steps of four pairs."""
        self._started += 1
        told = {
            "size": size,
            "store": str(self._folder / f"store-{self._started}"),
            "model": str(self._model),
            "photos": str(self._folder / "photos"),
            "class": str(self._folder / "class"),
            "batch": 4,
            "steps": 4,
            **given,
        }
        return side_by_side(train, size, told)


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Group:
    return Group(tiny_model, tmp_path_factory.mktemp("group"))


@pytest.fixture(scope="module")
def alone(group: Group) -> dict[str, Any]:
    """One worker with the whole batch, by the reference."""
    return group.train(1, engine="eager")[0]


@pytest.mark.timeout(500)
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("engine", ["eager", "float32"])
def test_workers_together_have_the_losses_and_weights_of_one_with_the_whole_batch(
    group: Group, alone: dict[str, Any], engine: str, size: int
) -> None:
    workers = group.train(size, engine=engine, bucket_bytes=100_000)
    for worker in workers:
        assert worker["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        assert worker["weights"] == pytest.approx(alone["weights"], rel=1e-3, abs=1e-2)
        assert worker["losses"] == workers[0]["losses"]
        assert worker["weights"] == workers[0]["weights"]
    if engine == "float32":
        assert workers[0]["engine"]["allReduce"]["buckets"] > 1


@pytest.mark.timeout(500)
@pytest.mark.parametrize("size", [2, 4])
def test_workers_that_share_the_state_out_take_the_same_steps(
    group: Group, alone: dict[str, Any], size: int
) -> None:
    workers = group.train(size, engine="float32", bucket_bytes=100_000, sharded=True)
    for worker in workers:
        assert worker["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        assert worker["weights"] == pytest.approx(alone["weights"], rel=1e-3, abs=1e-2)
        assert worker["weights"] == workers[0]["weights"]
        assert worker["engine"]["optimizerState"] == "shared out"


@pytest.mark.timeout(500)
def test_what_was_shared_out_is_kept_whole_and_goes_on_with_another_number_of_workers(
    group: Group, alone: dict[str, Any], tmp_path: Path
) -> None:
    one_run, two_runs = str(tmp_path / "one"), str(tmp_path / "two")
    given = {"engine": "float32", "bucket_bytes": 100_000, "sharded": True}
    first = group.train(2, **given, steps=2, to=one_run)
    assert first[0]["losses"] == pytest.approx(alone["losses"][:2], rel=1e-4)
    for size in (1, 2, 4):
        rest = group.train(size, **given, steps=2, **{"from": one_run, "to": two_runs})
        assert rest[0]["losses"] == pytest.approx(alone["losses"][2:], rel=1e-4)
        assert rest[0]["weights"] == pytest.approx(alone["weights"], rel=1e-3, abs=1e-2)
    kept = CheckpointStore(Path(two_runs), "key").latest()
    assert kept is not None and kept.step == 4
    assert all(torch.count_nonzero(moment) for moment in kept.moments.values())


@pytest.mark.timeout(500)
@pytest.mark.parametrize("launches", [["EAGER"], ["SPLIT"]])
def test_shared_out_in_bfloat16_the_losses_are_those_of_one_within_two_percent(
    group: Group, launches: list[str]
) -> None:
    one = group.train(1, engine="bfloat16")[0]
    two = group.train(2, engine="bfloat16", bucket_bytes=100_000, sharded=True, launches=launches)
    assert two[0]["losses"] == two[1]["losses"]
    assert two[0]["losses"] == pytest.approx(one["losses"], rel=0.02)


@pytest.mark.timeout(500)
def test_gradients_that_travel_in_bfloat16_give_the_same_losses_within_two_percent(
    group: Group,
) -> None:
    one = group.train(1, engine="bfloat16")[0]
    two = group.train(2, engine="bfloat16", bucket_bytes=100_000)
    assert two[0]["engine"]["allReduce"]["type"] == "bfloat16"
    assert two[0]["losses"] == two[1]["losses"]
    assert two[0]["losses"] == pytest.approx(one["losses"], rel=0.02)


@pytest.mark.timeout(500)
def test_the_few_gradients_of_adapters_travel_together(group: Group) -> None:
    one = group.train(1, engine="float32", lora=True)[0]
    two = group.train(2, engine="float32", lora=True)
    assert two[0]["engine"]["allReduce"]["buckets"] == 1
    assert two[0]["losses"] == pytest.approx(one["losses"], rel=1e-4)


@pytest.mark.timeout(500)
def test_where_sums_cannot_be_captured_the_graph_is_split_around_them(
    group: Group, alone: dict[str, Any]
) -> None:
    two = group.train(2, engine="float32", launches=["SPLIT"])
    assert two[0]["engine"]["launch"] == "two CUDA graphs"
    for worker in two:
        assert worker["losses"] == pytest.approx(alone["losses"], rel=1e-4)


class Crossed(nn.Module):
    """Its parameters are listed in another order than a backward pass comes to them."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Linear(8, 8)
        self.last = nn.Linear(8, 8)
        self.first = nn.Linear(8, 8)
        self.unused = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.middle(self.first(x)))
        return result


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """This process as a group of one."""
    store = f"file://{tmp_path}/store"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_gradients_are_sent_while_the_backward_pass_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reduction, "BUCKET_BYTES", 1)
    model, arrived, sent = Crossed(), [], []
    names = {parameter: name for name, parameter in model.named_parameters()}
    buckets = BucketReduction(list(model.parameters()))
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: arrived.append(names[p]))
    send = buckets._send

    def spy(bucket: Any) -> None:
        sent.append((names[bucket.parameters[0]], len(arrived)))
        send(bucket)

    monkeypatch.setattr(buckets, "_send", spy)
    model(torch.ones(2, 8)).sum().backward()
    buckets.settle()
    model.zero_grad()
    arrived.clear()
    buckets.begin()
    loss = model(torch.ones(2, 8)).sum()
    loss.backward()
    buckets.finish(loss.detach())
    # One bucket a parameter: each goes at once, whatever place it has in the model.
    assert [name for name, _ in sent] == arrived and len(sent) == 6
    assert [place for _, place in sent] == list(range(6))
