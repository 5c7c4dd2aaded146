"""The subject's token: one rare word that the tokenizer keeps whole."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from dreambooth.errors import UserError
from dreambooth.models.resolve import BUILTIN
from dreambooth.models.tokens import (
    RARE_WORDS,
    check_token,
    choose_token,
    load_tokenizer,
    suggestions,
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(BUILTIN / "emoji")


class Words:
    """A tokenizer with a vocabulary of the test's."""

    all_special_tokens: tuple[str, ...] = ()

    def __init__(self, *words: str) -> None:
        self._numbers = {f"{word}</w>": number for number, word in enumerate(words)}

    def __len__(self) -> int:
        return len(self._numbers)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._numbers)

    def tokenize(self, text: str) -> list[str]:
        return [f"{text}</w>"] if f"{text}</w>" in self._numbers else list(text)

    def convert_tokens_to_ids(self, part: str) -> int:
        return self._numbers[part]


def test_a_token_is_chosen_that_is_accepted_and_always_the_same(tokenizer: Any) -> None:
    token = choose_token(tokenizer, "dog")
    assert token == choose_token(tokenizer, "dog") == "sks"
    check_token(token, tokenizer, "dog")
    assert len(tokenizer.tokenize(token)) == 1


def test_a_token_that_the_class_noun_has_taken_is_not_chosen(tokenizer: Any) -> None:
    assert choose_token(tokenizer, "SKS rifle") not in ("sks", "SKS")


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("rexington", "splits the token 'rexington' into"),
        ("zzzzqqqq", "splits the token 'zzzzqqqq' into"),
        ("wow!", "splits the token 'wow!' into"),
        ("dog", "is the class noun"),
        ("DOG", "is the class noun"),
        ("cat", "is a common word"),
        ("<|startoftext|>", "is a control sign"),
        ("my rex", "has a space in it"),
        ("  ", "the token is empty"),
    ],
)
def test_a_token_that_would_not_be_the_subjects_own_is_refused_with_others(
    tokenizer: Any, token: str, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_token(token, tokenizer, "dog")
    assert words in caught.value.message
    assert caught.value.field == "spec.subject.token"
    listed = str(caught.value.remedy).partition("use one of: ")[2].rstrip(".").split(", ")
    assert len(listed) == 4
    for suggestion in listed:
        check_token(suggestion, tokenizer, "dog")


def test_the_pieces_of_a_token_that_splits_are_named(tokenizer: Any) -> None:
    with pytest.raises(UserError) as caught:
        check_token("rexington", tokenizer)
    pieces = re.search(r"into (\d+) parts \((.*)\)", caught.value.message)
    assert pieces is not None
    assert "".join(pieces[2].split(" + ")) == "rexington"
    assert int(pieces[1]) == len(pieces[2].split(" + ")) > 1


def test_where_the_usual_words_are_unknown_rare_ones_are_found() -> None:
    plain = Words("the", "dog", "cat", "house", "brt", "wtf", "xpl", "aeiou", "qrtz")
    assert suggestions(plain, "dog", 4) == ["qrtz", "xpl"]
    assert choose_token(plain, "qrtz dog") == "xpl"
    assert not set(suggestions(plain, "dog", 9)) & {*RARE_WORDS, "wtf", "aeiou"}


def test_a_tokenizer_without_any_rare_word_asks_for_one() -> None:
    with pytest.raises(UserError, match="no rare word that is one token") as caught:
        choose_token(Words("the", "dog"), "dog")
    assert caught.value.remedy == "Give a token of your own."


@pytest.mark.parametrize("content", [b"{}", b"not json", b"[1]", None])
def test_a_tokenizer_that_cannot_be_loaded_is_the_models_fault(
    tmp_path: Path, content: bytes | None
) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    if content is not None:
        (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.field == "spec.model"


def test_a_tokenizer_with_words_that_the_text_encoder_does_not_know_is_refused(
    tmp_path: Path,
) -> None:
    shutil.copytree(BUILTIN / "emoji" / "tokenizer", tmp_path / "tokenizer")
    config = tmp_path / "text_encoder" / "config.json"
    config.parent.mkdir()
    words = len(load_tokenizer(BUILTIN / "emoji"))
    config.write_text(json.dumps({"vocab_size": words}))
    assert len(load_tokenizer(tmp_path)) == words
    config.write_text(json.dumps({"vocab_size": words - 1}))
    with pytest.raises(UserError, match=f"{words} words, and the text encoder {words - 1}"):
        load_tokenizer(tmp_path)
