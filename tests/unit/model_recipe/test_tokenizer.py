"""The vocabulary, of the recipe and of the model that is shipped."""

from pathlib import Path

import pytest

from tools.model.dataset import Dataset
from tools.model.tokenizer import (
    IDENTIFIERS,
    LENGTH,
    VOCABULARY,
    encode_captions,
    load_tokenizer,
    train_tokenizer,
)

SHIPPED = Path(__file__).resolve().parents[3] / "runtime/dreambooth/models/builtin/emoji/tokenizer"


@pytest.fixture(params=["recipe", "shipped"])
def folder(request: pytest.FixtureRequest, robot_folder: Path) -> Path:
    return SHIPPED if request.param == "shipped" else robot_folder / "tokenizer"


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_an_identifier_is_one_token(folder: Path, identifier: str) -> None:
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tokenize(f"a photo of {identifier} robot")[3:-1] == [f"{identifier}</w>"]


def test_ids_fit_the_text_encoder(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    assert tokenizer.model_max_length == LENGTH
    ids = tokenizer("an unheard-of wörd ☃ " * 20, padding="max_length", truncation=True)
    assert len(ids["input_ids"]) == LENGTH
    assert max(ids["input_ids"]) < VOCABULARY
    assert max(tokenizer.get_vocab().values()) < VOCABULARY


def test_case_and_unknown_words_are_no_obstacle(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tokenize("A Robot") == tokenizer.tokenize("a robot")
    assert tokenizer.decode(tokenizer("xylophonist").input_ids[1:-1]).strip() == "xylophonist"


def test_captions_begin_with_start_and_are_padded_with_end(robot_folder: Path) -> None:
    tokenizer = load_tokenizer(robot_folder / "tokenizer")
    texts = [("a robot", "a photo of a robot"), ("robot " * 60, "")]
    tokens = encode_captions(tokenizer, texts, chunk=3)
    assert tokens.shape == (2, 2, LENGTH)
    assert set(tokens[:, :, 0].flat) == {tokenizer.bos_token_id}
    assert set(tokens[:, :, -1].flat) == {tokenizer.eos_token_id}
    assert tokens[0, 0, 1:3].tolist() == tokenizer("a robot").input_ids[1:3]


def test_the_same_captions_give_the_same_vocabulary(
    robots: Dataset, robot_folder: Path, tmp_path: Path
) -> None:
    train_tokenizer(robots.records, tmp_path)
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / name).read_bytes() == (robot_folder / "tokenizer" / name).read_bytes()
