"""A model's safety checker is found, downloaded and told apart only where it is wanted."""

import shutil
from pathlib import Path
from typing import Literal

import pytest

from dreambooth.api.job import ModelRef
from dreambooth.drive.record import MAX_WARNING
from dreambooth.errors import InfrastructureError, UserError
from dreambooth.models.resolve import ResolvedModel, resolve
from tests.fake_hub import FakeHub, Repo
from tests.tiny_checker import add_checker, change_index

COMMIT = "1" * 40
WEIGHTS = "safety_checker/model.safetensors"
CHECKER = {
    "safety_checker/config.json",
    WEIGHTS,
    "feature_extractor/preprocessor_config.json",
}
Wanted = Literal["auto", "disabled"]


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """A model with a checker, beside the manifest."""
    return add_checker(Path(shutil.copytree(tiny_model, tmp_path / "m")))


@pytest.fixture
def repo(hub: FakeHub, model: Path) -> Repo:
    """The same model as a repository."""
    files = {name: (model / name).read_bytes() for name in names(model)}
    found = hub.models["me/tiny"] = Repo(files, COMMIT)
    return found


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def local(folder: Path, wanted: Wanted = "auto") -> ResolvedModel:
    ref = ModelRef(path="m", safety_checker=wanted)
    return resolve(ref, workspace=folder / "ws", manifest_dir=folder)


def on_hub(folder: Path, wanted: Wanted = "auto", revision: str = COMMIT) -> ResolvedModel:
    ref = ModelRef(repo="me/tiny", revision=revision, safety_checker=wanted)
    return resolve(ref, workspace=folder / "ws", manifest_dir=folder)


def test_a_checker_has_a_digest_of_its_own_and_leaves_the_models_as_it_was(
    tmp_path: Path, model: Path
) -> None:
    checked, unchecked = local(tmp_path), local(tmp_path, "disabled")
    assert checked.checker is not None and unchecked.checker is None
    assert checked.digest == unchecked.digest
    assert (checked.warning, unchecked.warning) == (None, None)
    add_checker(model, seed=1)
    assert local(tmp_path).checker != checked.checker
    assert local(tmp_path).digest == checked.digest


def test_a_model_without_a_checker_is_what_it_was(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "m")
    assert local(tmp_path) == local(tmp_path, "disabled")
    assert local(tmp_path).checker is None and local(tmp_path).warning is None


def test_what_is_off_may_be_damaged(tmp_path: Path, model: Path) -> None:
    (model / WEIGHTS).write_bytes(b"damaged")
    assert local(tmp_path, "disabled").checker is None
    with pytest.raises(UserError) as caught:
        local(tmp_path)
    assert f"m/{WEIGHTS} is damaged or not complete" in caught.value.message
    assert caught.value.remedy


def test_a_checker_in_pieces_is_named_as_not_complete(tmp_path: Path, model: Path) -> None:
    shutil.rmtree(model / "feature_extractor")
    with pytest.raises(UserError, match=r"feature_extractor/preprocessor_config\.json is missing"):
        local(tmp_path)


@pytest.mark.parametrize("what", ["a pickle", "nothing", "another kind"])
def test_a_checker_that_cannot_be_used_is_told_with_a_remedy_and_is_no_error(
    tmp_path: Path, model: Path, what: str
) -> None:
    if what == "another kind":
        change_index(model, safety_checker=["mine", "MyChecker"])
    else:
        (model / WEIGHTS).unlink()
    if what == "a pickle":
        (model / "safety_checker" / "pytorch_model.bin").write_bytes(b"x")
    found = local(tmp_path)
    assert found.checker is None
    assert found.warning is not None and found.warning.startswith("m has a safety checker")
    assert "safe_serialization=True" in found.warning
    assert "spec.model.safetyChecker to disabled" in found.warning
    # Status has room for so much.
    assert len(found.warning) < MAX_WARNING - 50
    assert local(tmp_path, "disabled").warning is None


def test_half_precision_weights_of_a_checker_are_used_where_there_are_no_others(
    tmp_path: Path, model: Path
) -> None:
    (model / WEIGHTS).rename((model / WEIGHTS).with_suffix(".fp16.safetensors"))
    found = local(tmp_path)
    assert names(found.folder) == names(model) - {"safety_checker/model.fp16.safetensors"} | {
        WEIGHTS
    }
    assert local(tmp_path, "disabled").folder == model


def test_only_who_wants_a_checker_downloads_it(tmp_path: Path, hub: FakeHub, repo: Repo) -> None:
    unchecked = on_hub(tmp_path, "disabled")
    assert not CHECKER & (names(unchecked.folder) | set(hub.downloads()))
    before = set(hub.downloads())
    checked = on_hub(tmp_path)
    assert set(hub.downloads()) - before == CHECKER
    assert names(checked.folder) - names(unchecked.folder) == CHECKER
    assert checked.digest == unchecked.digest
    hub.requests.clear()
    assert on_hub(tmp_path) == checked and on_hub(tmp_path, "disabled") == unchecked
    assert hub.requests == []
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert (checked.folder / unet).samefile(unchecked.folder / unet)


def test_a_checker_that_was_downloaded_once_is_no_reason_to_download_the_rest_again(
    tmp_path: Path, hub: FakeHub, repo: Repo
) -> None:
    checked = on_hub(tmp_path)
    hub.requests.clear()
    unchecked = on_hub(tmp_path, "disabled")
    assert hub.requests == []
    assert (unchecked.digest, unchecked.checker) == (checked.digest, None)


def test_a_repository_whose_checker_is_a_pickle_is_asked_once(
    tmp_path: Path, hub: FakeHub, repo: Repo
) -> None:
    del repo.files[WEIGHTS]
    repo.files["safety_checker/pytorch_model.bin"] = b"x" * 999
    first = on_hub(tmp_path)
    assert first.warning is not None and "me/tiny has a safety checker" in first.warning
    assert not [name for name in hub.downloads() if "checker" in name]
    hub.requests.clear()
    assert on_hub(tmp_path) == first and hub.requests == []


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_checker_that_a_hub_out_of_reach_has_is_not_done_without(
    tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    """As on a workspace that a version before this one has left."""
    unchecked = on_hub(tmp_path, "disabled", revision)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InfrastructureError, match="safety checker of the model me/tiny") as caught:
        on_hub(tmp_path, revision=revision)
    assert caught.value.field == "spec.model.safetyChecker"
    assert "disabled" in str(caught.value.remedy)
    assert on_hub(tmp_path, "disabled", revision) == unchecked


def test_without_a_network_a_checker_that_is_there_will_do(
    tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = on_hub(tmp_path, revision="main")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert on_hub(tmp_path, revision="main") == checked
