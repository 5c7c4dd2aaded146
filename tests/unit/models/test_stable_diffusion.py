"""A Stable-Diffusion-shaped model: loaded whole or not at all, and saved so that others load it."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreambooth.errors import UserError
from dreambooth.models.resolve import BUILTIN
from dreambooth.models.stable_diffusion import StableDiffusion

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
PROMPTS = ["photo of a sks dog", ""]


def weights_of(model: StableDiffusion) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, part in (("unet", model.unet), ("vae", model.vae), ("text", model.text_encoder))
        for key, value in part.state_dict().items()
    }


def prediction(model: StableDiffusion) -> Tensor:
    noise = torch.randn((2, *model.latent_shape), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        embeddings = model.encode_prompt(model.tokenize(PROMPTS))
        return model.predict(noise, torch.tensor([10, 900]), embeddings)


def disturb(module: torch.nn.Module) -> None:
    """Stands for training: every weight that may change does."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))


@pytest.mark.parametrize("model", ["tiny_model", "tiny_velocity_model"])
def test_a_saved_model_is_the_same_when_it_is_loaded_again(
    tmp_path: Path, request: pytest.FixtureRequest, model: str
) -> None:
    first = StableDiffusion.load(request.getfixturevalue(model))
    disturb(first.unet)
    first.save(tmp_path / "saved", lora=False)
    second = StableDiffusion.load(tmp_path / "saved")
    before, after = weights_of(first), weights_of(second)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(prediction(first), prediction(second))
    kind = first.scheduler_config["prediction_type"]
    assert second.scheduler_config["prediction_type"] == kind
    assert list((tmp_path / "saved").rglob("*.bin")) == []


# A process without any of our code: loads each folder, the last one as adapters to the first.
DIFFUSERS_ALONE = """
import sys
import torch
from diffusers import StableDiffusionPipeline

def draw(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("photo of a sks dog", num_inference_steps=2, output_type="np",
                     generator=torch.Generator().manual_seed(0)).images[0]
    print(image.shape, float(image.mean()))

base, saved, lora = sys.argv[1:]
draw(StableDiffusionPipeline.from_pretrained(base))
draw(StableDiffusionPipeline.from_pretrained(saved))
adapted = StableDiffusionPipeline.from_pretrained(base)
adapted.load_lora_weights(lora)
draw(adapted)
assert not any(name.startswith("dreambooth") for name in sys.modules)
"""


def test_plain_diffusers_loads_what_was_saved(tmp_path: Path, tiny_model: Path) -> None:
    model = StableDiffusion.load(tiny_model)
    disturb(model.unet)
    model.save(tmp_path / "saved", lora=False)
    adapted = StableDiffusion.load(tiny_model)
    adapted.add_lora(4, 8.0, text_encoder=True, seed=5)
    disturb(adapted.unet)
    adapted.save(tmp_path / "lora", lora=True)
    folders = [tiny_model, tmp_path / "saved", tmp_path / "lora"]
    drawn = subprocess.run(
        [sys.executable, "-P", "-c", DIFFUSERS_ALONE, *map(str, folders)],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    assert all(line.startswith("(32, 32, 3)") for line in drawn)
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("text_encoder", [True, False])
def test_saved_adapters_make_of_the_base_what_was_trained(
    tmp_path: Path, tiny_model: Path, text_encoder: bool
) -> None:
    base = prediction(StableDiffusion.load(tiny_model))
    tuned = StableDiffusion.load(tiny_model)
    tuned.add_lora(4, 8.0, text_encoder=text_encoder, seed=5)
    assert torch.allclose(prediction(tuned), base, atol=1e-6)
    disturb(tuned.unet)
    disturb(tuned.text_encoder)
    wanted = prediction(tuned)
    assert (wanted - base).abs().max() > 1e-3
    tuned.save(tmp_path / "lora", lora=True)
    assert [file.name for file in (tmp_path / "lora").iterdir()] == [
        "pytorch_lora_weights.safetensors"
    ]
    again = StableDiffusion.load(tiny_model)
    again.load_lora(tmp_path / "lora")
    assert torch.allclose(prediction(again), wanted, atol=1e-4)


def test_adapters_begin_the_same_for_the_same_seed(tiny_model: Path) -> None:
    def begun(seed: int) -> dict[str, Tensor]:
        model = StableDiffusion.load(tiny_model)
        model.add_lora(2, 2.0, text_encoder=True, seed=seed)
        return {n: p for n, p in model.unet.named_parameters() if p.requires_grad}

    one, same, other = begun(1), begun(1), begun(2)
    assert one and all("lora" in name for name in one)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_half_precision_files_are_loaded_as_float32_masters() -> None:
    model = StableDiffusion.load(BUILTIN / "emoji")
    assert {weight.dtype for weight in model.unet.parameters()} == {torch.float32}
    assert {weight.dtype for weight in model.text_encoder.parameters()} == {torch.float32}
    assert model.resolution == 128
    assert prediction(model).isfinite().all()


def tensors(name: str, change: Callable[[dict[str, Tensor], str], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        found = load_file(folder / WEIGHTS[name])
        change(found, sorted(found)[3])
        save_file(found, folder / WEIGHTS[name], metadata={"format": "pt"})

    return spoil


def setting(file: str, **values: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**config, **values}))

    return spoil


def drop(found: dict[str, Tensor], key: str) -> None:
    del found[key]


def widen(found: dict[str, Tensor], key: str) -> None:
    found[key] = torch.zeros([*found[key].shape[:-1], found[key].shape[-1] + 1])


def break_header(folder: Path) -> None:
    content = (folder / WEIGHTS["unet"]).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    head = content[8 : 8 + size].replace(b'"F32"', b'"X32"', 1)
    (folder / WEIGHTS["unet"]).write_bytes(content[:8] + head + content[8 + size :])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (tensors("unet", drop), "the weights of the unet have no "),
        (tensors("vae", drop), "the weights of the vae have no "),
        (tensors("text_encoder", drop), "the weights of the text_encoder have no "),
        (tensors("unet", widen), "cannot be loaded"),
        (tensors("vae", widen), "cannot be loaded"),
        (tensors("text_encoder", widen), "cannot be loaded"),
        (break_header, "cannot be loaded"),
        (setting("unet/config.json", down_block_types=["Cube", "Cube"]), "cannot be loaded"),
        (setting("text_encoder/config.json", hidden_size=24), "cannot be loaded"),
        (setting("scheduler/scheduler_config.json", prediction_type="sample"), "predicts 'sample'"),
        (lambda folder: shutil.rmtree(folder / "vae"), "cannot be loaded"),
        (lambda folder: (folder / "tokenizer" / "tokenizer.json").write_text("{}"), "cannot be"),
    ],
)
def test_a_model_that_is_not_what_it_says_is_refused_and_never_filled_with_noise(
    tmp_path: Path, tiny_model: Path, spoil: Callable[[Path], object], words: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    spoil(folder)
    with pytest.raises(UserError) as caught:
        StableDiffusion.load(folder)
    assert words in caught.value.message
    assert caught.value.field == "spec.model"
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_weights_that_nothing_asks_for_do_no_harm(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    # Old text encoders carry one of these.
    tensors("text_encoder", lambda found, key: found.update(position_ids=torch.zeros(1, 77)))(
        folder
    )
    assert torch.equal(
        prediction(StableDiffusion.load(folder)), prediction(StableDiffusion.load(tiny_model))
    )
