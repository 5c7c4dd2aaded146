"""The whole recipe with the real networks, for a few steps."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.model_recipe.builders import CPU, a_composer
from tools.model import autoencoder
from tools.model.cli import main
from tools.model.dataset import Dataset
from tools.model.errors import RecipeError
from tools.model.export import export_pipeline
from tools.model.networks import CHANNELS, Widths, new_autoencoder, new_text_encoder, new_unet
from tools.model.pace import Pace, Steps
from tools.model.recipe import Recipe
from tools.model.tokenizer import load_tokenizer

SHIPPED = Path(__file__).resolve().parents[3] / "runtime/dreambooth/models/builtin/emoji"
SAMPLES, STEPS, BATCH = 6, 5, 2


class SmallRecipe(Recipe):
    """With networks of the same kind that a processor trains in no time."""

    widths = Widths(autoencoder=(8, 8, 8), unet=(32, 32, 32), text=32, groups=(4, 8))


def trained(data: Path, state: Path, pause: Pace | None = None) -> Recipe:
    """A state in which everything is trained, in calls as long as `pause` lets them be."""
    recipe = SmallRecipe(data, state, CPU)
    recipe.make_samples(SAMPLES)
    while not recipe.train_autoencoder(Steps(STEPS), pause, batch=BATCH):
        recipe = SmallRecipe(data, state, CPU)
    recipe.encode()
    while not recipe.train_denoiser(Steps(STEPS), pause, batch=BATCH):
        recipe = SmallRecipe(data, state, CPU)
    return recipe


@pytest.fixture(scope="module")
def state(robot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe") / "state"
    trained(robot_folder, folder).export(folder / "model", batch=BATCH)
    return folder


def test_pausing_changes_no_bit_of_the_model(
    robot_folder: Path, state: Path, tmp_path: Path
) -> None:
    recipe = trained(robot_folder, tmp_path / "state", pause=Steps(3))
    recipe.export(tmp_path / "model", batch=BATCH)
    weights = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("model/*/*.safetensors"))
    assert len(weights) == 3
    for path in weights:
        assert (tmp_path / path).read_bytes() == (state / path).read_bytes(), path


def test_plain_diffusers_draws_with_what_was_exported(state: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained({str(state / "model")!r}).to("cpu")
image = pipeline.to("cpu", __import__("torch").float32)("a robot", num_inference_steps=1).images[0]
assert image.size == (128, 128)
assert not [name for name in sys.modules if name.split(".")[0] in ("tools", "dreambooth")]
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_networks_are_those_of_the_model_that_is_shipped(state: Path) -> None:
    def plain(config: Mapping[str, Any]) -> Any:
        about = ("transformers_version", "architectures", "dtype")
        known = {name: v for name, v in config.items() if name not in about and name[0] != "_"}
        return json.loads(json.dumps(known))

    def shipped(part: str) -> Any:
        return plain(json.loads((SHIPPED / part).read_text()))

    text_encoder = new_text_encoder(Widths(), load_tokenizer(SHIPPED / "tokenizer"))
    networks = {"unet": new_unet(Widths()), "vae": new_autoencoder(Widths())}
    for part, network in networks.items():
        assert plain(network.config) == shipped(f"{part}/config.json"), part
    ours = plain(text_encoder.config.to_dict())
    theirs = shipped("text_encoder/config.json")
    assert {name: ours[name] for name in theirs} == theirs
    schedule = "scheduler/scheduler_config.json"
    exported = json.loads((state / "model" / schedule).read_text())
    assert plain(exported) == shipped(schedule)
    sizes = [sum(p.numel() for p in n.parameters()) for n in (*networks.values(), text_encoder)]
    assert [round(size / 1e6, 2) for size in sizes] == [11.01, 2.57, 2.57]


def test_the_export_is_small_half_precision_and_tells_no_paths(state: Path) -> None:
    from safetensors import safe_open

    files = [file for file in (state / "model").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 40 * 2**20
    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as weights:
                names = weights.keys()
                kinds = {weights.get_slice(name).get_dtype() for name in names}
            assert kinds <= {"F16", "I64"}, file
        elif file.suffix == ".json":
            assert str(state) not in file.read_text(), file


def test_an_export_never_overwrites_a_model(state: Path) -> None:
    with pytest.raises(RecipeError, match="exists"):
        export_pipeline(state / "model", None, None, None, None)


def test_other_samples_need_another_folder(robot_folder: Path, state: Path) -> None:
    with pytest.raises(RecipeError, match=r"samples\.npz has other samples: .* Use another folder"):
        Recipe(robot_folder, state, CPU).make_samples(SAMPLES + 1)


def test_a_step_says_which_one_has_to_come_first(robot_folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(robot_folder, tmp_path, CPU)
    with pytest.raises(RecipeError, match="run samples first"):
        recipe.train_autoencoder(Steps(1))
    recipe.make_samples(SAMPLES)
    with pytest.raises(RecipeError, match="finish train-vae first"):
        recipe.encode()
    with pytest.raises(RecipeError, match="run train-unet first"):
        recipe.export(tmp_path / "model")


def test_latents_are_made_anew_for_another_autoencoder(
    robot_folder: Path, state: Path, tmp_path: Path
) -> None:
    shutil.copytree(state, tmp_path / "state")
    shutil.rmtree(tmp_path / "state" / "vae")
    (tmp_path / "state" / "autoencoder.pt").unlink()
    recipe = SmallRecipe(robot_folder, tmp_path / "state", CPU)
    assert recipe.train_autoencoder(Steps(1), batch=BATCH)
    with pytest.raises(RecipeError, match="run encode first"):
        recipe.train_denoiser(Steps(STEPS), batch=BATCH)
    recipe.encode()
    with pytest.raises(RecipeError, match="of another training"):
        recipe.train_denoiser(Steps(STEPS), batch=BATCH)


def test_latents_have_mean_0_and_deviation_1_and_decode_as_before(robots: Dataset) -> None:
    network = autoencoder.new(SmallRecipe.widths, seed=0).eval()
    pictures = a_composer(robots).compose(torch.arange(8))
    with torch.no_grad():
        before, _ = autoencoder.posterior(network, pictures)
        decoded = autoencoder.decode(network, before)
        mean, deviation = before.mean((0, 2, 3)), before.std((0, 2, 3))
        autoencoder.fold_statistics(network, mean, deviation)
        after, _ = autoencoder.posterior(network, pictures)
        assert torch.allclose(after.mean((0, 2, 3)), torch.zeros(CHANNELS), atol=1e-4)
        assert torch.allclose(after.std((0, 2, 3)), torch.ones(CHANNELS), atol=1e-4)
        assert torch.allclose(autoencoder.decode(network, after), decoded, atol=1e-4)


def test_psnr_grows_when_less_is_lost(robots: Dataset) -> None:
    composer = a_composer(robots)

    class Lossless(torch.nn.Module):
        """Keeps pictures, but for an error of 0.02."""

        def __init__(self) -> None:
            super().__init__()
            self.quant_conv = self.post_quant_conv = self.decoder = torch.nn.Identity()
            self.encoder = lambda pictures: torch.cat([pictures + 0.02, pictures], 1)

    # 4 / 0.0004 is 40 dB; where the picture is white already, the error is cut off.
    assert 40 <= autoencoder.psnr(Lossless(), composer, 4) < 50
    assert autoencoder.psnr(autoencoder.new(SmallRecipe.widths, seed=0).eval(), composer, 4) < 20


def test_one_command_goes_from_data_to_grid_and_score(
    robot_folder: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recipe, "widths", SmallRecipe.widths)
    shutil.copytree(state, tmp_path / "state", ignore=shutil.ignore_patterns("model"))
    options = ["--steps", str(STEPS), "--count", str(SAMPLES), "--sampling-steps", "1"]
    options += ["--batch", str(BATCH), "--autoencoder-batch", str(BATCH), "--each", "1"]
    main(["all", str(robot_folder), str(tmp_path / "state"), str(tmp_path / "out"), *options])
    assert (tmp_path / "out" / "grid.webp").exists()
    score = json.loads((tmp_path / "out" / "score.json").read_text())
    assert score["encoder"] == "efficientnet-lite0"
    assert score["real"]["recognised"] == 1.0  # there are only robots


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["samples", str(tmp_path / "none"), str(tmp_path / "state")])
    assert stopped.value.code == 2
    assert "Make it with: python -m tools.model pictures" in capsys.readouterr().err
