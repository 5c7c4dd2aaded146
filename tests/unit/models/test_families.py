"""SDXL and Stable Diffusion 3: computed as diffusers does, trained, and saved so that it loads."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionXLPipeline
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from dreambooth.api.job import ModelRef
from dreambooth.errors import UserError
from dreambooth.models.family import ModelFamily, trained_networks
from dreambooth.models.load import load_model
from dreambooth.models.resolve import resolve
from dreambooth.models.stable_diffusion_3 import StableDiffusion3
from dreambooth.models.stable_diffusion_xl import StableDiffusionXL
from dreambooth.sampling.sampler import Sampler
from dreambooth.sampling.settings import SamplingSettings
from dreambooth.training.trainer import Trainer
from tests.tiny_families import make_tiny_sd3, make_tiny_xl
from tests.unit.training.conftest import make_trainer, one_thread_only, pictures, settings

CPU = torch.device("cpu")
PROMPT = "photo of a sks dog"
STEPS = 3


@dataclass(frozen=True)
class Family:
    """One of the families, as a folder and as diffusers' pipeline."""

    folder: Path
    pipeline: Any
    ours: type[StableDiffusionXL] | type[StableDiffusion3]
    absent: tuple[str, ...] = ()

    def load(self) -> ModelFamily:
        return load_model(self.folder).to(CPU)

    def load_with_diffusers(self, folder: Path) -> Any:
        """The pipeline; parts that the folder does without have to be named."""
        return self.pipeline.from_pretrained(folder, **dict.fromkeys(self.absent))


@pytest.fixture(scope="module", params=["xl", "sd3", "sd3 with a T5"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = tmp_path_factory.mktemp("family")
    if request.param == "xl":
        make_tiny_xl(folder)
        return Family(folder, StableDiffusionXLPipeline, StableDiffusionXL)
    t5 = "T5" in request.param
    make_tiny_sd3(folder, t5=t5)
    absent = () if t5 else ("text_encoder_3", "tokenizer_3")
    return Family(folder, StableDiffusion3Pipeline, StableDiffusion3, absent)


@pytest.fixture(autouse=True)
def light() -> Iterator[None]:
    with one_thread_only():
        yield


def drawn(model: ModelFamily, guidance: float = 4.0) -> NDArray[np.uint8]:
    sampler = Sampler(model, CPU)
    made = sampler.sample([PROMPT], [7], SamplingSettings(None, STEPS, guidance))
    picture: NDArray[np.uint8] = made[0]
    return picture


def drawn_by(pipeline: Any, model: ModelFamily, guidance: float = 4.0) -> NDArray[np.uint8]:
    """The same noise, as diffusers alone makes a picture of it."""
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(7))
    made = pipeline(
        PROMPT, num_inference_steps=STEPS, guidance_scale=guidance, latents=noise
    ).images
    picture: NDArray[np.uint8] = np.asarray(made[0])
    return picture


def alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """At most one grey level apart, from rounding."""
    return bool(np.abs(one.astype(int) - other.astype(int)).max() <= 1)


def disturb(modules: Any) -> None:
    """Stands for training: every weight that may change does."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in modules:
            for weight in module.parameters():
                if weight.requires_grad:
                    weight.add_(0.05 * torch.randn(weight.shape, generator=generator))


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_pictures_equal_those_of_the_diffusers_pipeline(family: Family, guidance: float) -> None:
    model = family.load()
    assert isinstance(model, family.ours)
    theirs = drawn_by(family.load_with_diffusers(family.folder), model, guidance)
    assert theirs.shape == (32, 32, 3)
    assert alike(drawn(model, guidance), theirs)


def test_pictures_equal_those_of_diffusers_where_an_empty_prompt_is_encoded(tmp_path: Path) -> None:
    family = Family(
        make_tiny_xl(tmp_path, force_zeros=False), StableDiffusionXLPipeline, StableDiffusionXL
    )
    model = family.load()
    assert alike(drawn(model), drawn_by(family.load_with_diffusers(tmp_path), model))


def test_what_is_told_of_prompts_has_a_row_for_each_and_fits_the_denoiser(family: Family) -> None:
    model = family.load()
    told = model.encode_prompt(model.tokenize([PROMPT, "red dog"]))
    assert told.pooled is not None
    assert len(told.tokens) == len(told.pooled) == len(told) == 2
    assert not torch.equal(told.tokens[0], told.tokens[1])
    noisy = torch.randn(2, *model.latent_shape)
    times = model.timesteps(torch.tensor([0.2, 0.9], dtype=torch.float64))
    assert model.predict(noisy, times, told).shape == noisy.shape


def trainer(
    family: Family, folder: Path, *, text_encoder: bool, lora: bool, learning_rate: float
) -> Trainer:
    model = family.load()
    if lora:
        model.add_lora(4, 4, text_encoder=text_encoder, seed=0)
    wanted = settings(text_encoder=text_encoder, learning_rate=learning_rate)
    return make_trainer(
        model, pictures(folder / "photos", 3), pictures(folder / "class", 3), wanted
    )


@pytest.mark.parametrize("lora", [False, True])
def test_training_lowers_the_loss_and_changes_all_that_is_trained(
    family: Family, tmp_path: Path, lora: bool
) -> None:
    rate = 1e-2 if lora else 3e-3
    training = trainer(family, tmp_path, text_encoder=True, lora=lora, learning_rate=rate)
    before = {name: weight.detach().clone() for name, weight in training.parameters.items()}
    losses = [training.train_step() for _ in range(30)]
    # The first steps once more: the same pictures, noise and times, most of which is noise that
    # nobody can foresee.
    training.step = 0
    again = [training.train_step() for _ in range(4)]
    assert sum(again) < 0.97 * sum(losses[:4])
    parts = {name.partition(".")[0] for name in before}
    assert parts == {"denoiser", "text_encoder", "text_encoder_2"}
    same = [n for n, weight in training.parameters.items() if torch.equal(before[n], weight)]
    # What the last block of a transformer asks on behalf of the text goes nowhere.
    assert [name for name in same if "transformer_blocks.1.attn.add_q_proj" not in name] == []
    assert all("lora" in name for name in before) == lora


def test_frozen_text_encoders_are_left_alone(family: Family, tmp_path: Path) -> None:
    training = trainer(family, tmp_path, text_encoder=False, lora=False, learning_rate=1e-3)
    model = training.model
    before = [w.detach().clone() for part in model.text_encoders for w in part.parameters()]
    training.train_step()
    after = [weight for part in model.text_encoders for weight in part.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert {name.partition(".")[0] for name in training.parameters} == {"denoiser"}


def test_each_weight_that_is_trained_has_a_gradient(family: Family) -> None:
    """One without would be none of the optimizer's business, and kernels take them all."""
    for lora in (False, True):
        model = family.load()
        if lora:
            model.add_lora(2, 2.0, text_encoder=True, seed=0)
        else:
            model.unfreeze(text_encoder=True)
        told = model.encode_prompt(model.tokenize([PROMPT]))
        times = model.timesteps(torch.tensor([0.5], dtype=torch.float64))
        model.predict(torch.randn(1, *model.latent_shape), times, told).square().sum().backward()
        trained = [
            (f"{part}.{name}", weight)
            for part, network in trained_networks(model).items()
            for name, weight in network.named_parameters()
            if weight.requires_grad
        ]
        assert trained
        assert [name for name, weight in trained if weight.grad is None] == []


def test_plain_diffusers_draws_with_a_saved_model_what_it_was_trained_to(
    family: Family, tmp_path: Path
) -> None:
    model = family.load()
    base = drawn(model)
    model.unfreeze(text_encoder=True)
    disturb(trained_networks(model).values())
    tuned = drawn(model)
    assert not alike(base, tuned)
    model.save(tmp_path / "saved", lora=False)
    assert alike(drawn_by(family.load_with_diffusers(tmp_path / "saved"), model), tuned)
    assert alike(drawn(load_model(tmp_path / "saved").to(CPU)), tuned)
    kept = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    given = json.loads((family.folder / "model_index.json").read_text())
    assert {k: v for k, v in kept.items() if v} == {k: v for k, v in given.items() if v}


@pytest.mark.parametrize("text_encoder", [True, False])
def test_plain_diffusers_draws_with_saved_adapters_what_they_were_trained_to(
    family: Family, tmp_path: Path, text_encoder: bool
) -> None:
    model = family.load()
    base = drawn(model)
    model.add_lora(4, 8.0, text_encoder=text_encoder, seed=5)
    assert alike(drawn(model), base)
    disturb(trained_networks(model).values())
    tuned = drawn(model)
    assert not alike(base, tuned)
    model.save(tmp_path / "lora", lora=True)
    assert [f.name for f in (tmp_path / "lora").iterdir()] == ["pytorch_lora_weights.safetensors"]
    pipeline = family.load_with_diffusers(family.folder)
    pipeline.load_lora_weights(tmp_path / "lora")
    assert alike(drawn_by(pipeline, model), tuned)
    merged = family.load()
    merged.load_lora(tmp_path / "lora")
    assert alike(drawn(merged), tuned)


def test_the_folder_resolves_to_its_pipeline(family: Family, tmp_path: Path) -> None:
    shutil.copytree(family.folder, tmp_path / "model")
    found = resolve(ModelRef(path="model"), workspace=tmp_path, manifest_dir=tmp_path)
    assert found.folder == tmp_path / "model"
    assert found.pipeline == family.pipeline.__name__


def without(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def other_setting(file: str, **values: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**config, **values}))

    return spoil


@pytest.mark.parametrize(
    ("t5", "spoil", "resolving", "loading"),
    [
        (None, without("text_encoder_2/model.safetensors"),
         "text_encoder_2/model.safetensors is missing", "cannot be loaded"),
        (None, other_setting("unet/config.json", addition_time_embed_dim=4),
         "is told 60 numbers of size and text where there are 36", None),
        (False, other_setting("transformer/config.json", joint_attention_dim=32),
         "texts of width 32 and text encoders of width 40", "cannot be loaded"),
        (True, without("tokenizer_3/tokenizer.json"),
         "tokenizer_3/tokenizer.json is missing", None),
        (True, without("text_encoder_3/model.safetensors"),
         "text_encoder_3/model.safetensors is missing", "cannot be loaded"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_whole_is_refused_by_the_name_of_what_is_wrong(
    tmp_path: Path,
    t5: bool | None,
    spoil: Callable[[Path], None],
    resolving: str,
    loading: str | None,
) -> None:
    folder = tmp_path / "model"
    if t5 is None:
        make_tiny_xl(folder)
    else:
        make_tiny_sd3(folder, t5=t5)
    spoil(folder)
    with pytest.raises(UserError) as caught:
        resolve(ModelRef(path="model"), workspace=tmp_path, manifest_dir=tmp_path)
    assert resolving in caught.value.message
    assert caught.value.field == "spec.model.path"
    if loading is not None:
        with pytest.raises(UserError, match=loading):
            load_model(folder)


def test_a_pipeline_of_no_family_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(UserError, match="is a FluxPipeline") as caught:
        load_model(tmp_path)
    assert "StableDiffusionXLPipeline" in str(caught.value.remedy)
    (tmp_path / "model_index.json").unlink()
    with pytest.raises(UserError, match="has no model_index"):
        load_model(tmp_path)


def test_a_vae_that_half_precision_is_not_for_computes_in_float32_beside_the_others(
    tmp_path: Path,
) -> None:
    # A device without memory of its own stands for a GPU.
    meta = torch.device("meta")
    model = load_model(make_tiny_xl(tmp_path)).to(meta, torch.float16)
    assert dtypes(model.autoencoder) == {torch.float32}
    assert dtypes(model.denoiser) == {torch.float16}
    other_setting("vae/config.json", force_upcast=False)(tmp_path)
    assert dtypes(load_model(tmp_path).to(meta, torch.float16).autoencoder) == {torch.float16}


def dtypes(module: nn.Module) -> set[torch.dtype]:
    return {weight.dtype for weight in module.parameters()}


def test_an_empty_prompt_is_nothing_only_where_the_model_was_trained_so(tmp_path: Path) -> None:
    def told(folder: Path) -> list[Tensor]:
        model = load_model(folder)
        rows = model.encode_prompt(model.tokenize(["", PROMPT]))
        assert rows.pooled is not None
        return [rows.tokens[0], rows.pooled[0], rows.tokens[1], rows.pooled[1]]

    empty, empty_pooled, *words = told(make_tiny_xl(tmp_path / "zeros"))
    assert not empty.any() and not empty_pooled.any()
    assert all(each.any() for each in words)
    assert all(each.any() for each in told(make_tiny_xl(tmp_path / "plain", force_zeros=False)))


def test_a_t5_tells_of_the_words_and_is_never_trained(tmp_path: Path) -> None:
    model = load_model(make_tiny_sd3(tmp_path / "model", t5=True))
    clip_length = 32
    told = model.encode_prompt(model.tokenize([PROMPT, "red dog"])).tokens[:, clip_length:]
    assert not torch.equal(told[0], told[1])
    model.unfreeze(text_encoder=True)
    disturb(trained_networks(model).values())
    model.save(tmp_path / "saved", lora=False)
    for part, changes in (("text_encoder", True), ("text_encoder_3", False)):
        before, after = (
            load_file(tmp_path / folder / part / "model.safetensors")
            for folder in ("model", "saved")
        )
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[name], after[name]) for name in before) == changes


def test_without_a_t5_its_place_is_empty(tmp_path: Path) -> None:
    model = load_model(make_tiny_sd3(tmp_path))
    told = model.encode_prompt(model.tokenize([PROMPT])).tokens
    assert told.shape == (1, 32 + 256, 48)
    assert told[:, :32].any() and not told[:, 32:].any()
