"""The subject's token: one rare word that the tokenizer keeps whole.

A word that splits into several tokens shares each of them with other words, and teaching it the
subject changes those too; so does a common word. See section 4.3 of DreamBooth (arXiv:2208.12242),
"rare-token identifiers".
"""

import re
from itertools import chain, islice
from pathlib import Path
from typing import Any

from dreambooth.errors import UserError
from dreambooth.workspace.atomic import read_json

FIELD = "spec.subject.token"
# Identifiers the field uses, and those that the built-in model's tokenizer has for this purpose.
RARE_WORDS = (
    "sks", "ohwx", "zwx", "zxq", "qvx", "xzj", "wqk", "vkz", "jxq", "zvw", "kqx", "rrq",
)  # fmt: skip
SUGGESTIONS = 4
_WORD_END = "</w>"
# Without a vowel it is no English word; what is left are rare abbreviations.
_SEARCHED = re.compile(r"[b-df-hj-np-tv-xz]{3,4}")
_RUDE = frozenset({"fck", "fkn", "fks", "wtf", "stfu", "btch", "dck", "sht", "kkk", "bdsm", "nsfw"})
# Tokenizers number words by how common they are.
_COMMON_SHARE = 0.5


def import_tokenizers() -> None:
    """Imports the library, which takes seconds, so that loading one does not."""
    from transformers import CLIPTokenizer  # noqa: F401


def load_tokenizer(folder: Path) -> Any:
    """The CLIP tokenizer of the model in `folder`.

    Raises:
        UserError: If it cannot be loaded.
    """
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        _check_vocabulary(tokenizer, folder)
        return tokenizer
    except Exception as error:
        # Anything can be wrong in files that people bring, and the library checks little.
        raise UserError(
            f"the tokenizer in {folder / 'tokenizer'} cannot be loaded ({_first_line(error)})",
            field="spec.model",
            remedy="Copy the model again; it needs vocab.json and merges.txt of a CLIP tokenizer.",
            reason="ModelNotLoadable",
        ) from error


def _check_vocabulary(tokenizer: Any, folder: Path) -> None:
    """Refuses one that has no words, or words that the text encoder does not know."""
    # A byte-level vocabulary begins with all bytes.
    if len(tokenizer) < 256:
        raise ValueError(f"it has {len(tokenizer)} words")
    known = (read_json(folder / "text_encoder" / "config.json") or {}).get("vocab_size")
    if isinstance(known, int) and len(tokenizer) > known:
        raise ValueError(f"it has {len(tokenizer)} words, and the text encoder {known}")


def choose_token(tokenizer: Any, class_noun: str) -> str:
    """A rare word that is one token; always the same for the same tokenizer and class.

    Raises:
        UserError: If the tokenizer has none.
    """
    found = suggestions(tokenizer, class_noun, 1)
    if not found:
        raise UserError(
            "the model's tokenizer has no rare word that is one token",
            field=FIELD,
            remedy="Give a token of your own.",
            reason="NoRareToken",
        )
    return found[0]


def check_token(token: str, tokenizer: Any, class_noun: str = "") -> None:
    """Refuses a token that would not become the subject's own.

    Args:
        token: As the manifest gives it.
        tokenizer: A transformers CLIP tokenizer.
        class_noun: The subject's class, which the token must differ from.

    Raises:
        UserError: With words to use instead.
    """
    words = ", ".join(suggestions(tokenizer, class_noun, SUGGESTIONS))
    remedy = f"Leave it out and one is chosen, or use one of: {words}."
    if problem := _problem(token, tokenizer, class_noun):
        raise UserError(problem, field=FIELD, remedy=remedy, reason="TokenNotUsable")


def suggestions(tokenizer: Any, class_noun: str, count: int) -> list[str]:
    """Up to `count` rare words that are one token each, the best first."""
    found = chain(RARE_WORDS, _rare_words(tokenizer))
    usable = (word for word in found if _problem(word, tokenizer, class_noun) is None)
    return list(islice(dict.fromkeys(usable), count))


def _problem(token: str, tokenizer: Any, class_noun: str) -> str | None:
    if not token.strip():
        return "the token is empty"
    if re.search(r"\s", token):
        return f"the token {token!r} has a space in it, so it is more than one word"
    if token.casefold() in class_noun.casefold().split():
        return f"the token {token!r} is the class noun, which means all of its kind"
    if token in tokenizer.all_special_tokens:
        return f"the token {token!r} is a control sign of the tokenizer"
    parts = tokenizer.tokenize(token)
    if len(parts) != 1:
        pieces = " + ".join(part.removesuffix(_WORD_END) for part in parts)
        return f"the tokenizer splits the token {token!r} into {len(parts)} parts ({pieces})"
    if not parts[0].endswith(_WORD_END):
        return f"the token {token!r} is no word of the tokenizer"
    if parts[0].removesuffix(_WORD_END) not in RARE_WORDS and _is_common(parts[0], tokenizer):
        return f"the token {token!r} is a common word, and the model would forget what it means"
    return None


def _is_common(part: str, tokenizer: Any) -> bool:
    number: int = tokenizer.convert_tokens_to_ids(part)
    return number < _COMMON_SHARE * len(tokenizer)


def _rare_words(tokenizer: Any) -> list[str]:
    """Short words without vowels, the rarest first."""
    words = {
        entry.removesuffix(_WORD_END): number
        for entry, number in tokenizer.get_vocab().items()
        if entry.endswith(_WORD_END)
    }
    rare = (word for word in words if _SEARCHED.fullmatch(word) and word not in _RUDE)
    return sorted(rare, key=lambda word: -words[word])


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
