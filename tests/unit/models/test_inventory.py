"""Which files of a model are used, told by their names and configurations alone."""

from typing import Any

import pytest

from dreambooth.errors import UserError
from dreambooth.models.inventory import check_parts, choose_files, read_index

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


def chosen(names: set[str]) -> dict[str, str]:
    return choose_files(names, where="me/tiny", field="spec.model")


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
        check_parts(configs, where="me/tiny", field="spec.model")
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
        check_parts({**CONFIGS, **change}, where="me/tiny", field="spec.model")
    except UserError as error:
        problem = str(error)
    assert problem is None
