"""Reads a manifest file: one YAML document, as the Kubernetes tools read it.

PyYAML follows YAML 1.1 to the letter, where `5e-6` is a text, `1:30` is ninety and `2024-01-01` a
date. kubectl takes the first for a number and the others for texts, and so does this module.
"""

import math
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from dreambooth.errors import UserError

# A job has a few kilobytes; the API server takes 1.5 MiB at most.
MAX_BYTES = 1024 * 1024
# Aliases can make a small file a large document.
MAX_VALUES = 20_000

_REASON = "InvalidManifest"


class _Loader(yaml.SafeLoader):
    """Safe loader with kubectl's idea of numbers, that refuses a field given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuses what `dict` would hide: the second of two equal keys, keys that are no texts."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or block"
                raise yaml.constructor.ConstructorError(
                    None, None, f"a field's name must be text, found {shown}", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the field "{key.value}" is given twice', key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.rpartition(":")[2] not in ("timestamp", "int", "float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def read_document(path: Path) -> dict[str, Any]:
    """The one document in the file.

    Raises:
        UserError: The file is not there, cannot be read, is no YAML, or holds something else than
            one block of fields.
    """
    return parse_document(_read_text(path), str(path))


def parse_document(text: str, source: str) -> dict[str, Any]:
    """The one document in the text; `source` names it in messages.

    Raises:
        UserError: As for `read_document`.
    """
    documents = [document for document in _documents(text, source) if document is not None]
    if not documents:
        raise _refusal("is empty", source, "Write a DreamBoothJob into it; examples/ has some.")
    if len(documents) > 1:
        raise _refusal(
            f"holds {len(documents)} documents",
            source,
            'Keep one DreamBoothJob a file, without "---" in between.',
        )
    document = documents[0]
    if not isinstance(document, dict):
        raise _refusal(
            "holds no fields such as kind and spec",
            source,
            "examples/ has manifests to start from.",
        )
    if _is_too_large(document):
        raise _refusal(
            f"holds more than {MAX_VALUES} values",
            source,
            "Give a DreamBoothJob without aliases (*name).",
        )
    return document


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise _refusal("no such file", str(path), "Check the path.") from error
    except IsADirectoryError as error:
        raise _refusal(
            "is a folder", str(path), "Give the manifest file inside it, a .yaml file."
        ) from error
    except PermissionError as error:
        raise _refusal(
            "cannot be read, permission denied", str(path), "Make it readable for this user."
        ) from error
    except (OSError, ValueError) as error:
        raise _refusal(f"cannot be read, {error}", str(path), "Check the path.") from error
    if len(content) > MAX_BYTES:
        raise _refusal(
            f"is larger than {MAX_BYTES // 1024} KiB", str(path), "Give the manifest, a YAML file."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refusal(
            f"is no UTF-8 text (byte {error.start})",
            str(path),
            "Give the manifest, a YAML file, and save it as UTF-8.",
        ) from error


def _documents(text: str, source: str) -> Iterator[Any]:
    try:
        yield from yaml.load_all(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _refusal(f"{error.problem}{where}", source, "Mend the YAML there.") from error
    except yaml.YAMLError as error:
        # A character that YAML does not allow; PyYAML's text has a second line on where.
        what = str(error).splitlines()[0]
        raise _refusal(what, source, "Mend the YAML there.") from error
    except (RecursionError, ValueError, OverflowError) as error:
        raise _refusal(
            "is nested too deeply or holds an impossible value",
            source,
            "Give a DreamBoothJob; examples/ has some.",
        ) from error


def _is_too_large(document: Any) -> bool:
    """Whether the document, with aliases written out, has more values than allowed."""
    waiting = [document]
    budget = MAX_VALUES
    while waiting:
        value = waiting.pop()
        budget -= 1
        if budget < 0:
            return True
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False


def is_finite_number(value: object) -> bool:
    """Whether JSON can say this number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _refusal(message: str, source: str, remedy: str) -> UserError:
    return UserError(message, field=source, remedy=remedy, reason=_REASON)
