"""The encoders: their sums against transformers and timm, and where weights come from."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

from dreambooth.errors import InfrastructureError, UserError
from dreambooth.quality.dino import from_timm
from dreambooth.quality.encoders import TextEncoder, load_encoder
from tests.tiny import BUILTIN


def pictures(count: int, size: tuple[int, int] = (40, 56)) -> list[Image.Image]:
    random = np.random.default_rng(0)
    shape = (size[1], size[0], 3)
    return [Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def tiny_dino() -> ViTModel:
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ViTModel(config, add_pooling_layer=False)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def tiny_clip() -> CLIPModel:
    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    tokenizer = json.loads((BUILTIN / "tokenizer" / "tokenizer.json").read_text())
    words = len(tokenizer["model"]["vocab"])
    config = CLIPConfig(
        text_config={**tower, "vocab_size": words, "max_position_embeddings": 32}
        | {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1},
        vision_config={**tower, "image_size": 32, "patch_size": 16},
        projection_dim=12,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(config)
    return model.eval()


@pytest.fixture
def models(tmp_path: Path, tiny_dino: ViTModel, tiny_clip: CLIPModel) -> Path:
    """A models folder as an administrator without a network prepares it."""
    tiny_dino.save_pretrained(tmp_path / "encoders" / "dino-vits16")
    folder = tmp_path / "encoders" / "clip-vit-b32"
    tiny_clip.save_pretrained(folder)
    shutil.copytree(BUILTIN / "tokenizer", folder, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("name", ["efficientnet-lite0", "dino-vits16", "clip-vit-b32"])
def test_embeddings_are_unit_vectors_that_repeat_bit_for_bit(name: str, models: Path) -> None:
    encoder = load_encoder(name, models)
    assert encoder.name == name
    images = pictures(3)
    first = encoder.embed(images)
    assert first.dtype == torch.float32
    assert first.shape[0] == 3
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(3))
    assert torch.equal(first, load_encoder(name, models).embed(images))
    assert not first.requires_grad


@pytest.mark.parametrize("name", ["efficientnet-lite0", "dino-vits16", "clip-vit-b32"])
def test_a_picture_is_embedded_alike_in_any_batch(name: str, models: Path) -> None:
    encoder = load_encoder(name, models)
    images = pictures(9)
    alone = torch.cat([encoder.embed([image]) for image in images])
    torch.testing.assert_close(encoder.embed(images), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "dino-vits16", "clip-vit-b32"])
def test_loading_leaves_the_callers_random_numbers_alone(name: str, models: Path) -> None:
    before = torch.random.get_rng_state()
    load_encoder(name, models)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_efficientnet_tells_subjects_apart() -> None:
    encoder = load_encoder("efficientnet-lite0", Path("unused"))
    blank, disc = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64), "white")
    disc.paste("red", (16, 16, 48, 48))
    moved = Image.new("RGB", (64, 64), "white")
    moved.paste("red", (18, 16, 50, 48))
    of_disc, of_moved, of_blank = encoder.embed([disc, moved, blank])
    assert float(of_disc @ of_moved) > float(of_disc @ of_blank) + 0.1


def test_pictures_of_any_mode_and_shape_are_embedded(models: Path) -> None:
    encoder = load_encoder("dino-vits16", models)
    odd = [Image.new("L", (300, 20)), Image.new("RGBA", (7, 90)), Image.new("P", (32, 32))]
    assert encoder.embed(odd).shape == (3, 8)


def test_clip_puts_text_and_pictures_into_one_space(models: Path) -> None:
    encoder = load_encoder("clip-vit-b32", models)
    assert isinstance(encoder, TextEncoder)
    long = "a photo of a robot " * 40
    texts = encoder.embed_text(["a robot", "a zombie", long])
    assert texts.shape == (3, 12)
    assert encoder.embed(pictures(1)).shape == (1, 12)
    assert not torch.allclose(texts[0], texts[1])
    # Neither neighbours nor padding change a prompt's vector.
    torch.testing.assert_close(encoder.embed_text(["a robot"])[0], texts[0], atol=1e-5, rtol=1e-5)


def test_clip_gives_what_transformers_gives(models: Path, tiny_clip: CLIPModel) -> None:
    encoder = load_encoder("clip-vit-b32", models)
    square = Image.fromarray(np.asarray(pictures(1, (32, 32))[0]))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    array = torch.from_numpy(np.asarray(square, dtype=np.float32).copy())
    pixels = (array.permute(2, 0, 1) / 255 - mean) / deviation
    with torch.no_grad():
        expected = tiny_clip.get_image_features(pixel_values=pixels[None])
    expected = F.normalize(getattr(expected, "pooler_output", expected), dim=-1)
    torch.testing.assert_close(encoder.embed([square]), expected, atol=1e-5, rtol=1e-5)


def test_only_encoders_with_text_say_so(models: Path) -> None:
    assert not isinstance(load_encoder("dino-vits16", models), TextEncoder)
    assert not isinstance(load_encoder("efficientnet-lite0", models), TextEncoder)


def test_an_unknown_encoder_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UserError, match=r"spec.evaluation.encoder: .*'clip'.*clip-vit-b32"):
        load_encoder("clip", Path("unused"))


def test_a_folder_with_a_pickle_only_is_refused(models: Path) -> None:
    folder = models / "encoders" / "dino-vits16"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        load_encoder("dino-vits16", models)


def test_weights_that_lack_something_are_refused(models: Path) -> None:
    file = models / "encoders" / "dino-vits16" / "model.safetensors"
    weights = load_file(file)
    del weights["layernorm.weight"]
    save_file(weights, file)
    with pytest.raises(UserError, match=r"lack layernorm\.weight"):
        load_encoder("dino-vits16", models)


def test_a_download_is_converted_kept_and_not_asked_for_again(
    tmp_path: Path, tiny_dino: ViTModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _pretend_hub(monkeypatch, _timm_weights(tiny_dino))
    _use_tiny_config(monkeypatch, tiny_dino)
    images = pictures(2, (36, 36))
    downloaded = load_encoder("dino-vits16", tmp_path).embed(images)
    again = load_encoder("dino-vits16", tmp_path).embed(images)
    assert asked == ["timm/vit_small_patch16_224.dino"]
    assert torch.equal(downloaded, again)
    source = json.loads((tmp_path / "encoders" / "dino-vits16" / "source.json").read_text())
    assert source == {"repo": "timm/vit_small_patch16_224.dino", "revision": "c0ffee"}
    assert [path.name for path in (tmp_path / "encoders").iterdir()] == ["dino-vits16"]


def test_timm_weights_compute_what_timm_computes(tiny_dino: ViTModel, tmp_path: Path) -> None:
    weights = _timm_weights(tiny_dino)
    folder = tmp_path / "encoders" / "dino-vits16"
    tiny_dino.save_pretrained(folder)
    save_file(from_timm(weights), folder / "model.safetensors")
    square = pictures(1, (36, 36))[0]
    embedded = load_encoder("dino-vits16", tmp_path).embed([square])
    centre = square.crop((2, 2, 34, 34))
    expected = F.normalize(_timm_forward(weights, centre, heads=2), dim=-1)
    torch.testing.assert_close(embedded, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "error", [LocalEntryNotFoundError("offline"), httpx2.ConnectError("refused"), ValueError("?")]
)
def test_a_hub_that_does_not_answer_is_named_with_the_way_out(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(InfrastructureError) as raised:
        load_encoder("clip-vit-b32", tmp_path)
    assert "openai/clip-vit-base-patch32" in str(raised.value)
    assert "efficientnet-lite0" in str(raised.value)
    assert not (tmp_path / "encoders").exists()


def test_a_full_disk_is_not_taken_for_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(InfrastructureError, match="no space left"):
        load_encoder("clip-vit-b32", tmp_path)


def _pretend_hub(monkeypatch: pytest.MonkeyPatch, weights: dict[str, Tensor]) -> list[str]:
    asked: list[str] = []

    def download(repo: str, *, cache_dir: Path, allow_patterns: Sequence[str], **_: Any) -> str:
        asked.append(repo)
        snapshot = cache_dir / "snapshots" / "c0ffee"
        snapshot.mkdir(parents=True)
        assert list(allow_patterns) == ["model.safetensors"]
        save_file(weights, snapshot / "model.safetensors")
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def _use_tiny_config(monkeypatch: pytest.MonkeyPatch, model: ViTModel) -> None:
    from dreambooth.quality import dino

    tiny = json.loads(model.config.to_json_string())
    for name in dino.DINO_VITS16_CONFIG:
        monkeypatch.setitem(dino.DINO_VITS16_CONFIG, name, tiny[name])


def _timm_weights(model: ViTModel) -> dict[str, Tensor]:
    """The model's weights under timm's names, written out by hand."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    weights = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
    }
    for kind in ("weight", "bias"):
        weights[f"patch_embed.proj.{kind}"] = state[
            f"embeddings.patch_embeddings.projection.{kind}"
        ]
        weights[f"norm.{kind}"] = state[f"layernorm.{kind}"]
        for i in range(model.config.num_hidden_layers):
            old, new = f"layers.{i}", f"blocks.{i}"
            qkv = [state[f"{old}.attention.{part}_proj.{kind}"] for part in "qkv"]
            weights[f"{new}.attn.qkv.{kind}"] = torch.cat(qkv)
            weights[f"{new}.attn.proj.{kind}"] = state[f"{old}.attention.o_proj.{kind}"]
            weights[f"{new}.norm1.{kind}"] = state[f"{old}.layernorm_before.{kind}"]
            weights[f"{new}.norm2.{kind}"] = state[f"{old}.layernorm_after.{kind}"]
            weights[f"{new}.mlp.fc1.{kind}"] = state[f"{old}.mlp.fc1.{kind}"]
            weights[f"{new}.mlp.fc2.{kind}"] = state[f"{old}.mlp.fc2.{kind}"]
    return weights


def _timm_forward(weights: dict[str, Tensor], image: Image.Image, heads: int) -> Tensor:
    """The VisionTransformer of timm, written out: the class token after the last norm, `[1, D]`."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, 1e-12)

    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    array = (np.asarray(image, dtype=np.float64) / 255 - mean) / deviation
    pixels = torch.from_numpy(array).float().permute(2, 0, 1)[None]
    patches = F.conv2d(
        pixels, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=16
    )
    x = torch.cat([weights["cls_token"], patches.flatten(2).transpose(1, 2)], dim=1)
    x = x + weights["pos_embed"]
    for i in range(2):
        qkv = linear(f"blocks.{i}.attn.qkv", norm(f"blocks.{i}.norm1", x))
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + linear(f"blocks.{i}.attn.proj", mixed)
        hidden = F.gelu(linear(f"blocks.{i}.mlp.fc1", norm(f"blocks.{i}.norm2", x)))
        x = x + linear(f"blocks.{i}.mlp.fc2", hidden)
    return norm("norm", x)[:, 0]
