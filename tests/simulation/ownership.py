"""Server-side apply: who owns which fields, and what an apply makes of an object.

As the structured-merge-diff library of Kubernetes does it, for the shapes that the operator's
objects have: maps merge, lists are replaced whole unless they are maps by a key, what a manager
applied before and no longer applies goes away unless somebody else wants it as well. An apply is
always forced. Lists that are sets of values, and lists keyed by several fields, are not known here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Path = tuple[str, ...]
"""A field: names, and for an entry of a keyed list `=` and its key's value."""

Keys = Callable[[Path], str | None]
"""The field that tells entries of the list at a path apart; None if the list is one value."""

Owners = Mapping[str, frozenset[Path]]
"""The fields of each manager."""


def fields_of(value: Any, keys: Keys, at: Path = ()) -> Iterator[Path]:
    """The fields that somebody who wrote `value` owns."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from fields_of(inner, keys, (*at, name))
    elif isinstance(value, list) and (key := keys(_names(at))):
        for entry in value:
            here = (*at, f"={entry[key]}")
            yield here
            yield from fields_of(entry, keys, here)
    else:
        yield at


def apply(
    live: dict[str, Any], intent: dict[str, Any], manager: str, owners: Owners, keys: Keys
) -> tuple[dict[str, Any], dict[str, frozenset[Path]]]:
    """What the object is after the apply, and who owns what of it then."""
    now = frozenset(fields_of(intent, keys))
    merged = _merge(live, intent, keys, ())
    others = {name: fields for name, fields in owners.items() if name != manager}
    wanted = _with_parents(now.union(*others.values()))
    for path in sorted(_with_parents(owners.get(manager, frozenset())) - wanted, key=len):
        _remove(merged, path, keys)
    kept = {
        name: frozenset(
            path
            for path in fields
            # Whose value was replaced is no longer an owner.
            if path not in now or _find(live, path, keys) == _find(merged, path, keys)
        )
        for name, fields in others.items()
    }
    return merged, {name: fields for name, fields in (kept | {manager: now}).items() if fields}


def update(
    live: dict[str, Any], new: dict[str, Any], manager: str, owners: Owners, keys: Keys
) -> dict[str, frozenset[Path]]:
    """Who owns what after a plain write: what it changed is its writer's alone."""
    before, after = set(fields_of(live, keys)), set(fields_of(new, keys))
    changed = {
        path
        for path in after
        if path not in before or _find(live, path, keys) != _find(new, path, keys)
    }
    result = {
        name: (fields & _with_parents(after)) - (changed if name != manager else frozenset())
        for name, fields in owners.items()
    }
    result[manager] = frozenset(result.get(manager, frozenset()) | changed)
    return {name: frozenset(fields) for name, fields in result.items() if fields}


def _names(path: Path) -> Path:
    return tuple(part for part in path if not part.startswith("="))


def _with_parents(paths: Iterable[Path]) -> frozenset[Path]:
    """The fields and all maps and entries around them."""
    return frozenset(path[:size] for path in paths for size in range(1, len(path) + 1))


def _merge(live: Any, intent: Any, keys: Keys, at: Path) -> Any:
    if isinstance(live, dict) and isinstance(intent, dict):
        merged = dict(live)
        for name, value in intent.items():
            merged[name] = _merge(live.get(name), value, keys, (*at, name))
        return merged
    if isinstance(intent, list) and (key := keys(_names(at))):
        wanted = {entry[key]: entry for entry in intent}
        known = {entry[key]: entry for entry in live or ()}
        entries = [_merge(old, wanted.pop(name, {}), keys, at) for name, old in known.items()]
        return entries + [_merge({}, entry, keys, at) for entry in wanted.values()]
    return intent


def _inner(value: Any, part: str, key: str | None) -> Any:
    """The part of a map or keyed list; None if there is none."""
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and key:
        return next((entry for entry in value if f"={entry.get(key)}" == part), None)
    return None


def _find(value: Any, path: Path, keys: Keys) -> Any:
    for depth, part in enumerate(path):
        value = _inner(value, part, keys(_names(path[:depth])))
    return value


def _remove(value: dict[str, Any], path: Path, keys: Keys) -> None:
    """Take the field away; `value` is a copy down to what is changed."""
    parent = _find(value, path[:-1], keys)
    if isinstance(parent, dict):
        parent.pop(path[-1], None)
    elif isinstance(parent, list):
        entry = _inner(parent, path[-1], keys(_names(path[:-1])))
        if entry is not None:
            parent.remove(entry)
