"""Reading a YAML file so strictly that every mistake is named with its line.

A `Section` hands out its fields one by one, checked; `finish` then refuses whatever nobody asked
for, so that a misspelt field is an error and not silently ignored.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

T = TypeVar("T")

NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"


class SettingsError(Exception):
    """The settings are wrong; the message says file:line, field, what was found, what to do."""


def read_settings(path: Path, build: Callable[["Section"], T]) -> T:
    """What `build` makes of the file's one mapping.

    Raises:
        SettingsError: If the file cannot be read, is no YAML, or `build` refuses something in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}). Name a readable file.") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(f"{path}:{line}: not YAML: {error.problem}. Correct it.") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML: {error}. Correct it.") from error
    if not isinstance(node, yaml.MappingNode):
        raise SettingsError(f"{path}:1: found no settings. See config.example.yaml for a start.")
    section = Section(path, "", node)
    built = build(section)
    section.finish()
    return built


class Section:
    """One mapping of the file.

    Args:
        path: The file, for messages.
        field: The mapping's own place, such as `pools.a100`; empty for the whole file.
        node: What the parser found.
    """

    def __init__(self, path: Path, field: str, node: yaml.MappingNode) -> None:
        self._path = path
        self._field = field
        self._node = node
        self._values: dict[str, yaml.Node] = {}
        self._unread: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in self._values:
                self._fail(key, name, "is there twice", "Remove one of them.")
            self._values[name] = value
            self._unread[name] = key

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def finish(self) -> None:
        """Refuse fields that were not read.

        Raises:
            SettingsError: If there is one.
        """
        for name, key in self._unread.items():
            known = ", ".join(sorted(set(self._values) - set(self._unread))) or "none here"
            self._fail(key, name, "is not a setting", f"Remove it, or correct it (read: {known}).")

    def fail(self, name: str, found: str, remedy: str) -> NoReturn:
        """Refuse the field `name` of this section, or the section itself if it lacks the field.

        Raises:
            SettingsError: Always.
        """
        self._fail(self._values.get(name, self._node), name, found, remedy)

    def text(self, name: str, pattern: str = r".+", hint: str = "some text") -> str:
        """A text that is required and matches the pattern from end to end."""
        value = self._value(name)
        if value is None:
            self.fail(name, "is missing", f"Give {hint}.")
        # A number where a text is meant, such as cpu: 8, reads as people expect.
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.fail(name, f"is {value!r}", f"Give {hint}.")
        if not re.fullmatch(pattern, str(value)):
            self.fail(name, f"is {value!r}", f"Give {hint}.")
        return str(value)

    def optional_text(self, name: str, pattern: str = r".+", hint: str = "some text") -> str | None:
        """A text, or None if the field is absent or null."""
        return None if self._value(name) is None else self.text(name, pattern, hint)

    def text_or(self, name: str, default: str, pattern: str = r".+", hint: str = "text") -> str:
        """A text, or the default if the field is absent or null."""
        found = self.optional_text(name, pattern, hint)
        return default if found is None else found

    def integer(self, name: str, default: int, minimum: int, maximum: int) -> int:
        """A whole number within bounds."""
        value = self._value(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(name, f"is {value!r}", "Give a whole number.")
        if not minimum <= value <= maximum:
            self.fail(name, f"is {value}", f"Give a number from {minimum} to {maximum}.")
        return int(value)

    def optional_integer(self, name: str, minimum: int, maximum: int) -> int | None:
        """A whole number within bounds, or None if the field is absent or null."""
        if self._value(name) is None:
            return None
        return self.integer(name, minimum, minimum, maximum)

    def optional_number(self, name: str, minimum: float, maximum: float) -> float | None:
        """A number within bounds, or None if the field is absent or null."""
        value = self._value(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(name, f"is {value!r}", "Give a number.")
        if not minimum <= value <= maximum:
            self.fail(name, f"is {value}", f"Give a number from {minimum:g} to {maximum:g}.")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fail(name, f"is {value!r}", "Give true or false.")
        return bool(value)

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of the allowed words."""
        value = self._value(name)
        if value is None:
            return default
        if value not in allowed:
            self.fail(name, f"is {value!r}", f"Give one of {', '.join(allowed)}.")
        return str(value)

    def texts(self, name: str, pattern: str = NAME, hint: str = "names") -> tuple[str, ...]:
        """A list of texts; empty if the field is absent or null."""
        value = self._value(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(
            isinstance(entry, str) and re.fullmatch(pattern, entry) for entry in value
        ):
            self.fail(name, f"is {value!r}", f"Give a list of {hint}.")
        return tuple(value)

    def labels(self, name: str) -> Mapping[str, str]:
        """A mapping of texts to texts; empty if the field is absent or null."""
        value = self._value(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(
            isinstance(key, str) and isinstance(entry, str) for key, entry in value.items()
        ):
            self.fail(name, f"is {value!r}", 'Give texts for texts; quote true and numbers ("1").')
        return dict(value)

    def objects(self, name: str, allowed: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
        """A list of mappings with no other fields than those allowed, taken as they are."""
        value = self._value(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self.fail(name, f"is {value!r}", "Give a list of mappings.")
        for entry in value:
            for key in entry:
                if key not in allowed:
                    hint = f"Its entries can have {', '.join(allowed)}."
                    self.fail(name, f"has an entry with {key!r}", hint)
        return tuple(value)

    def section(self, name: str) -> "Section | None":
        """A mapping of its own, or None if the field is absent or null."""
        if self._value(name) is None:
            return None
        node = self._values[name]
        if not isinstance(node, yaml.MappingNode):
            self.fail(name, "is not a mapping", "Give fields below it, indented.")
        return Section(self._path, self._place(name), node)

    def _value(self, name: str) -> Any:
        self._unread.pop(name, None)
        if name not in self._values:
            return None
        try:
            return yaml.SafeLoader("").construct_object(self._values[name], deep=True)
        except yaml.YAMLError as error:
            self.fail(name, f"cannot be read ({error})", "Correct it.")

    def _place(self, name: str) -> str:
        return f"{self._field}.{name}" if self._field else name

    def _fail(self, node: yaml.Node, name: str, found: str, remedy: str) -> NoReturn:
        line = node.start_mark.line + 1
        raise SettingsError(f"{self._path}:{line}: {self._place(name)} {found}. {remedy}")
