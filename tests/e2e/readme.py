"""The README's commands, as a reader would type them."""

import re

PROMPT = "$ "


def commands(document: str, heading: str) -> list[str]:
    """The commands of the only console block under a heading, without prompts and comments.

    Raises:
        ValueError: If there is no such heading, or not exactly one block under it.
    """
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", document, re.M | re.S)
    if found is None:
        raise ValueError(f"no heading {heading!r}")
    blocks = re.findall(r"^```console\n(.*?)^```", found[2], re.M | re.S)
    if len(blocks) != 1:
        raise ValueError(f"{len(blocks)} console blocks under {heading!r}, not one")
    # A comment begins after white space; inside a word, # is a character like any other.
    return [
        re.sub(r"\s+#.*", "", line.removeprefix(PROMPT))
        for line in blocks[0].splitlines()
        if line.startswith(PROMPT)
    ]
