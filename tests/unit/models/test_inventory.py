"""Which files of a model are used, told by their names and configurations alone."""

import json
from typing import Any

import pytest

from dreambooth.errors import UserError
from dreambooth.models.inventory import check_parts, choose_files, read_index, require_index
from dreambooth.models.layouts import (
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_3,
    STABLE_DIFFUSION_XL,
    Layout,
)

CONFIGS: dict[str, Any] = {
    "unet": {"in_channels": 4, "cross_attention_dim": 768},
    "vae": {"latent_channels": 4},
    "text_encoder": {"hidden_size": 768},
    "scheduler": {"prediction_type": "epsilon"},
}
COMPLETE = {
    "model_index.json",
    "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json", "text_encoder/model.safetensors",
    "tokenizer/vocab.json", "tokenizer/merges.txt",
    "scheduler/scheduler_config.json",
}  # fmt: skip
WHOLE = "unet/diffusion_pytorch_model.safetensors"
HALF = "unet/diffusion_pytorch_model.fp16.safetensors"


def chosen(names: set[str], layout: Layout = STABLE_DIFFUSION) -> dict[str, str]:
    require_index(names, where="me/tiny", field="spec.model")
    return choose_files(names, layout, where="me/tiny", field="spec.model")


def shards(count: int, total: int) -> set[str]:
    files = {
        f"unet/diffusion_pytorch_model-{n:05d}-of-{total:05d}.safetensors"
        for n in range(1, count + 1)
    }
    return files | {"unet/diffusion_pytorch_model.safetensors.index.json"}


def test_all_that_is_needed_is_chosen_and_nothing_else() -> None:
    others = {"README.md", "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors"}
    assert chosen(COMPLETE | others) == {name: name for name in COMPLETE}


def test_whole_weights_go_before_half_ones_and_half_ones_take_their_name() -> None:
    assert chosen(COMPLETE | {HALF})[WHOLE] == WHOLE
    assert chosen(COMPLETE - {WHOLE} | {HALF})[WHOLE] == HALF


def test_weights_in_pieces_are_taken_if_no_piece_is_missing() -> None:
    assert shards(3, 3) <= set(chosen(COMPLETE - {WHOLE} | shards(3, 3)))
    with pytest.raises(UserError, match=f"{WHOLE} is missing"):
        chosen(COMPLETE - {WHOLE} | shards(2, 3))


@pytest.mark.parametrize(
    "name", sorted(COMPLETE - {"model_index.json"}), ids=lambda name: name.replace("/", " ")
)
def test_a_file_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(UserError) as caught:
        chosen(COMPLETE - {name})
    assert f"{name} is missing" in caught.value.message
    assert caught.value.reason == "ModelIncomplete"


def test_one_file_is_enough_for_a_newer_tokenizer() -> None:
    names = COMPLETE - {"tokenizer/vocab.json", "tokenizer/merges.txt"}
    assert "tokenizer/tokenizer.json" in chosen(names | {"tokenizer/tokenizer.json"})


@pytest.mark.parametrize(
    ("names", "reason", "remedy"),
    [
        ({"model.ckpt"}, "PickleRefused", "safe_serialization=True"),
        ({"v1-5.safetensors"}, "ModelNotSupported", "from_single_file"),
        ({"sd/model_index.json"}, "ModelIncomplete", "Give the folder sd in it"),
        ({"README.md"}, "ModelIncomplete", "save_pretrained"),
        (set(), "ModelIncomplete", "save_pretrained"),
        (COMPLETE - {WHOLE} | {"unet/model.bin"}, "PickleRefused", "Look for a revision"),
    ],
)
def test_what_is_no_diffusers_folder_is_refused_with_the_way_to_one(
    names: set[str], reason: str, remedy: str
) -> None:
    with pytest.raises(UserError) as caught:
        chosen(names)
    assert caught.value.reason == reason
    assert remedy in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged model_index.json"),
        ("[]", "damaged model_index.json"),
        ('{"_class_name": "FluxPipeline"}', "is a FluxPipeline"),
        ('{"_class_name": "StableDiffusionPipeline"}', "has no unet"),
        (
            '{"_class_name": "StableDiffusionPipeline", "unet": ["x", "UNet3D"]}',
            "has the unet UNet3D",
        ),
    ],
)
def test_an_index_of_something_else_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match="me/tiny") as caught:
        read_index(text, where="me/tiny", field="spec.model")
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("unet", {"in_channels": 9}, "a unet for 9 channels where its vae makes 4"),
        ("unet", {"cross_attention_dim": 1024}, "texts of width 1024 and a text encoder of width"),
        ("scheduler", {"prediction_type": "sample"}, "predicts 'sample'"),
        ("vae", None, "damaged configuration of the vae"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    part: str, change: dict[str, Any] | None, words: str
) -> None:
    configs = {**CONFIGS, part: change and {**CONFIGS[part], **change}}
    with pytest.raises(UserError) as caught:
        check_parts(configs, STABLE_DIFFUSION, where="me/tiny", field="spec.model")
    assert words in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"scheduler": {"prediction_type": "v_prediction"}},
        # What a part leaves out has the value that diffusers gives it.
        {"scheduler": {}, "vae": {}, "unet": {"cross_attention_dim": 768}},
    ],
)
def test_parts_that_belong_together_are_taken(change: dict[str, Any]) -> None:
    problem = None
    try:
        check_parts({**CONFIGS, **change}, STABLE_DIFFUSION, where="me/tiny", field="spec.model")
    except UserError as error:
        problem = str(error)
    assert problem is None


def an_index(pipeline: str, **parts: list[str | None]) -> str:
    return json.dumps({"_class_name": pipeline, "_diffusers_version": "0.42.0", **parts})


CLIP, PROJECTED = ["transformers", "CLIPTextModel"], ["transformers", "CLIPTextModelWithProjection"]
TOKENIZER = ["transformers", "CLIPTokenizer"]
XL_INDEX: dict[str, list[str | None]] = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": [*CLIP],
    "text_encoder_2": [*PROJECTED],
    "tokenizer": [*TOKENIZER],
    "tokenizer_2": [*TOKENIZER],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
}
SD3_INDEX: dict[str, list[str | None]] = {
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": [*PROJECTED],
    "text_encoder_2": [*PROJECTED],
    "text_encoder_3": ["transformers", "T5EncoderModel"],
    "tokenizer": [*TOKENIZER],
    "tokenizer_2": [*TOKENIZER],
    "tokenizer_3": ["transformers", "T5TokenizerFast"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
}


def read(text: str) -> Layout:
    return read_index(text, where="me/tiny", field="spec.model")


def test_a_model_without_a_t5_needs_no_files_of_one() -> None:
    whole = read(an_index("StableDiffusion3Pipeline", **SD3_INDEX))
    assert whole.components.keys() == STABLE_DIFFUSION_3.components.keys()
    without: dict[str, list[str | None]] = {
        **SD3_INDEX,
        "text_encoder_3": [None, None],
        "tokenizer_3": [None, None],
    }
    layout = read(an_index("StableDiffusion3Pipeline", **without))
    assert whole.components.keys() - layout.components.keys() == {"text_encoder_3", "tokenizer_3"}
    with pytest.raises(UserError, match=r"tokenizer_3/tokenizer\.json") as caught:
        chosen({"model_index.json"}, whole)
    assert "StableDiffusion3Pipeline.save_pretrained" in str(caught.value.remedy)
    with pytest.raises(UserError) as caught:
        chosen({"model_index.json"}, layout)
    assert "tokenizer_3" not in caught.value.message


@pytest.mark.parametrize(
    ("pipeline", "parts", "words"),
    [
        ("StableDiffusionXLPipeline", {**XL_INDEX, "text_encoder_2": [None, None]},
         "has no text_encoder_2 in its model_index.json"),
        ("StableDiffusionXLPipeline", {**XL_INDEX, "text_encoder_2": [*CLIP]},
         "has the text_encoder_2 CLIPTextModel"),
        ("StableDiffusion3Pipeline",
         {**SD3_INDEX, "scheduler": ["diffusers", "EulerDiscreteScheduler"]},
         "has the scheduler EulerDiscreteScheduler"),
        ("StableDiffusion3Pipeline", {**SD3_INDEX, "tokenizer": [None, None]},
         "has no tokenizer in its model_index.json"),
    ],
)  # fmt: skip
def test_a_pipeline_with_other_parts_than_its_family_is_refused(
    pipeline: str, parts: dict[str, list[str | None]], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        read(an_index(pipeline, **parts))
    assert words in caught.value.message


# As the published models have them.
XL_CONFIGS: dict[str, dict[str, Any]] = {
    "unet": {"in_channels": 4, "cross_attention_dim": 2048, "addition_embed_type": "text_time",
             "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816},
    "vae": {"latent_channels": 4, "force_upcast": True},
    "text_encoder": {"hidden_size": 768, "projection_dim": 768},
    "text_encoder_2": {"hidden_size": 1280, "projection_dim": 1280},
    "scheduler": {"prediction_type": "epsilon"},
}  # fmt: skip
SD3_CONFIGS: dict[str, dict[str, Any]] = {
    "transformer": {"in_channels": 16, "joint_attention_dim": 4096, "pooled_projection_dim": 2048},
    "vae": {"latent_channels": 16, "shift_factor": 0.0609},
    "text_encoder": {"hidden_size": 768, "projection_dim": 768},
    "text_encoder_2": {"hidden_size": 1280, "projection_dim": 1280},
    "text_encoder_3": {"d_model": 4096},
    "scheduler": {"shift": 3.0},
}


@pytest.mark.parametrize(
    ("layout", "configs"),
    [
        (STABLE_DIFFUSION_XL, XL_CONFIGS),
        (STABLE_DIFFUSION_3, SD3_CONFIGS),
        (STABLE_DIFFUSION_3, {k: v for k, v in SD3_CONFIGS.items() if k != "text_encoder_3"}),
    ],
)
def test_the_published_models_of_other_families_are_taken(
    layout: Layout, configs: dict[str, Any]
) -> None:
    assert layout.misfit(configs) is None


@pytest.mark.parametrize(
    ("layout", "part", "change", "words", "reason"),
    [
        (STABLE_DIFFUSION_XL, "unet", {"in_channels": 9}, "9 channels", "ModelNotSupported"),
        (STABLE_DIFFUSION_XL, "text_encoder", {"hidden_size": 1024}, "2304 together",
         "ModelIncomplete"),
        (STABLE_DIFFUSION_XL, "unet", {"addition_embed_type": None}, "not told the pictures' sizes",
         "ModelNotSupported"),
        (STABLE_DIFFUSION_XL, "text_encoder_2", {"projection_dim": 768}, "2816 numbers",
         "ModelIncomplete"),
        (STABLE_DIFFUSION_XL, "vae", {"latents_mean": [0.1]}, "mean and deviation of its own",
         "ModelNotSupported"),
        (STABLE_DIFFUSION_XL, "scheduler", {"prediction_type": "sample"}, "predicts 'sample'",
         "ModelNotSupported"),
        (STABLE_DIFFUSION_3, "vae", {"latent_channels": 4}, "16 channels where its vae makes 4",
         "ModelNotSupported"),
        (STABLE_DIFFUSION_3, "text_encoder", {"projection_dim": 512}, "pooled texts of width 2048",
         "ModelIncomplete"),
        (STABLE_DIFFUSION_3, "text_encoder", {"hidden_size": 4096}, "text encoders of width 5376",
         "ModelIncomplete"),
        (STABLE_DIFFUSION_3, "text_encoder_3", {"d_model": 1024}, "a T5 of width 1024",
         "ModelIncomplete"),
        (STABLE_DIFFUSION_3, "vae", {"shift_factor": None}, "without shift_factor",
         "ModelIncomplete"),
        (STABLE_DIFFUSION_3, "scheduler", {"use_dynamic_shifting": True}, "shifts with the",
         "ModelNotSupported"),
    ],
)  # fmt: skip
def test_parts_of_other_families_that_do_not_belong_together_are_refused(
    layout: Layout, part: str, change: dict[str, Any], words: str, reason: str
) -> None:
    known = XL_CONFIGS if layout is STABLE_DIFFUSION_XL else SD3_CONFIGS
    configs = {**known, part: {**known[part], **change}}
    with pytest.raises(UserError) as caught:
        check_parts(configs, layout, where="me/tiny", field="spec.model")
    assert words in caught.value.message
    assert caught.value.reason == reason
    assert caught.value.remedy
