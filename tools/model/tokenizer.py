"""The model's own vocabulary, in the format of CLIP's tokenizer."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.normalizers import NFC, Lowercase

from tools.model.captions import any_place, caption
from tools.model.colours import BACKGROUNDS, WORDS
from tools.model.errors import RecipeError
from tools.model.records import Record

VOCABULARY = 4096
# Tokens of a prompt, with start and end.
LENGTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"
# Words that no caption has and that are one token each: names for subjects.
IDENTIFIERS = (
    *("sks", "unqtkn", "zxq", "qvx", "xzj", "wqk", "vkz", "jxq"),
    *("zvw", "kqx", "ohwx", "bnha", "pllx", "hta", "xxy", "rrq"),
)
# Words of the prompts that are used to compare methods of fine-tuning, and others people write.
_OTHER_WORDS = (
    "man woman boy girl person toy plush stuffed animal figure figurine sculpture statue doll "
    "backpack sneaker vase bowl can teapot cup mug candle clock cartoon sunglasses boot shoe "
    "painting watercolor sketch oil style van gogh wearing hat santa red yellow rainbow scarf "
    "police outfit chef glasses on top of with and in the background eiffel tower floating water "
    "mirror dirt road tree autumn leaves mountain city wheat field pink fabric purple rug wooden "
    "floor cube shaped shiny wet sleeping sitting running jumping standing holding riding close up "
    "side front view cute small big tiny large old new dark light bright photo picture image "
    "rendering depiction good nice cool weird dirty clean cropped low resolution high quality "
    "beautiful best my one"
)
# CLIP's.
_PIECES = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_END_OF_WORD = "</w>"


def train_tokenizer(records: Sequence[Record], folder: Path) -> None:
    """Learns the vocabulary from captions and writes it to `folder`.

    Raises:
        RecipeError: If an identifier came out as several tokens.
    """
    merges = _learn_merges(_corpus(records))
    _write(merges, folder)
    tokenizer = load_tokenizer(folder)
    split = [word for word in IDENTIFIERS if len(tokenizer.tokenize(word)) != 1]
    if split:
        raise RecipeError(
            f"Not single tokens: {', '.join(split)}. They have to be more frequent in the corpus."
        )


def load_tokenizer(folder: Path) -> Any:
    """The `transformers.CLIPTokenizer` of that folder."""
    from transformers import CLIPTokenizer

    if not (folder / "vocab.json").exists():
        raise RecipeError(f"{folder} has no tokenizer. `python -m tools.model pictures` makes it.")
    return CLIPTokenizer.from_pretrained(folder)


def encode_captions(
    tokenizer: Any, captions: Sequence[tuple[str, ...]], chunk: int = 10_000
) -> NDArray[np.int16]:
    """Token ids, [N, captions, LENGTH]: start, text, end, padded with the end token."""
    flat = [text for texts in captions for text in texts]
    ids = [
        tokenizer(
            flat[begin : begin + chunk],
            padding="max_length",
            truncation=True,
            max_length=LENGTH,
            return_attention_mask=False,
        )["input_ids"]
        for begin in range(0, len(flat), chunk)
    ]
    return np.concatenate([np.array(part, np.int16) for part in ids]).reshape(
        len(captions), -1, LENGTH
    )


def _corpus(records: Sequence[Record]) -> Iterator[str]:
    rng = random.Random(0)
    for record in records:
        yield from (caption(record, 0, any_place(rng), rng) for _ in range(6))
        yield from [" ".join((*record.names, *record.nouns))] * 3
        yield from [" ".join(record.tags)] * 2
    yield from [_OTHER_WORDS] * 50
    yield from [" ".join((*BACKGROUNDS, *WORDS))] * 50
    yield from [" ".join(IDENTIFIERS)] * 3000


def _learn_merges(corpus: Iterator[str]) -> list[tuple[str, str]]:
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=_END_OF_WORD))
    tokenizer.normalizer = normalizers.Sequence([NFC(), Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY + 2000,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        # Tokens known beforehand have fixed ids, and those decide between equally frequent pairs.
        special_tokens=[letter + _END_OF_WORD for letter in _byte_letters()],
        end_of_word_suffix=_END_OF_WORD,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(first, second) for first, second in merges]


def _write(merges: list[tuple[str, str]], folder: Path) -> None:
    alphabet = _byte_letters()
    tokens = dict.fromkeys((*alphabet, *(letter + _END_OF_WORD for letter in alphabet)))
    kept = []
    for first, second in merges:
        if len(tokens) == VOCABULARY - 2:
            break
        tokens[first + second] = None
        kept.append(f"{first} {second}")
    vocabulary = {token: index for index, token in enumerate((*tokens, START, END))}
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        **special,
    }
    folder.mkdir(parents=True, exist_ok=True)
    _json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *kept, ""]))
    _json(folder / "tokenizer_config.json", settings)
    _json(folder / "special_tokens_map.json", special)


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]
