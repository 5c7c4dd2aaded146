"""What is wrong with a manifest, field by field, and the error that says it all at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from dreambooth.errors import UserError

# Names and positions from the manifest's top: ("spec", "generation", "prompts", 0).
FieldPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing to mend.

    Attributes:
        path: The field.
        message: What was found, without a full stop.
        remedy: What to do, a sentence.
        unlisted: The field should not be there at all.
    """

    path: FieldPath
    message: str | None
    remedy: str
    unlisted: bool = False

    @property
    def field(self) -> str:
        """The path as people write it: `spec.generation.prompts[0]`."""
        return format_path(self.path)

    def __str__(self) -> str:
        return (
            f"{self.field}: {self.message}. {self.remedy}"
            if self.message
            else (f"{self.field}: {self.remedy}")
        )


def format_path(path: FieldPath) -> str:
    """The path as people write it; "manifest" for the document itself."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("_", "").replace("-", "").isalnum():
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text or "manifest"


def error_of(problems: Sequence[Problem], source: str) -> UserError:
    """One error for all problems, one a line."""
    if len(problems) == 1:
        problem = problems[0]
        message, remedy = problem.message, problem.remedy
        if message is None:
            message, _, remedy = problem.remedy.partition(". ")
        return UserError(
            message, field=problem.field, remedy=remedy or None, reason="InvalidManifest"
        )
    lines = "\n".join(f"  {problem}" for problem in problems)
    return UserError(f"{len(problems)} problems\n{lines}", field=source, reason="InvalidManifest")
