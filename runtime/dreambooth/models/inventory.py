"""Which files of a diffusers folder are used, and what is wrong if they are not there.

Only safetensors weights: a pickle runs code when it is loaded. Judged by the index and by names
alone, so that a hub repository is refused before gigabytes of it are downloaded.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from dreambooth.errors import UserError
from dreambooth.models.layouts import CHECKER, LAYOUTS, Component, Layout

INDEX = "model_index.json"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".h5", ".msgpack")
CONVERT = (
    "Convert it where you trust it: DiffusionPipeline.from_pretrained(OLD)"
    ".save_pretrained(NEW, safe_serialization=True) in Python, with diffusers, and give NEW as "
    "spec.model.path."
)


def require_index(names: Collection[str], *, where: str, field: str) -> None:
    """Refuses what is no diffusers folder.

    Args:
        names: All files, relative to the folder, with "/".
        where: The folder or repository, for messages.
        field: Of the manifest.

    Raises:
        UserError: If model_index.json is not there; says what to do with what is.
    """
    if INDEX not in names:
        raise _no_index(set(names), where, field)


def read_index(text: str, *, where: str, field: str) -> Layout:
    """The parts that model_index.json lists, if it is that of a pipeline that can be tuned.

    A safety checker is among them if it is of the kind that is known here.

    Raises:
        UserError: Otherwise; says which pipelines can.
    """
    try:
        index = json.loads(text)
    except ValueError as error:
        raise _incomplete(where, f"has a damaged {INDEX}", field) from error
    if not isinstance(index, dict):
        raise _incomplete(where, f"has a damaged {INDEX}", field)
    layout = LAYOUTS.get(str(index.get("_class_name")))
    if layout is None:
        raise _unsupported(where, f"is a {index.get('_class_name')}", field)
    there = {}
    for name, component in layout.components.items():
        found = _class_of(index, name)
        if found is None and component.optional:
            continue
        if found is None:
            raise _incomplete(where, f"has no {name} in its {INDEX}", field, layout)
        if component.classes and found not in component.classes:
            raise _unsupported(where, f"has the {name} {found}", field)
        there[name] = component
    known = all(_class_of(index, name) in part.classes for name, part in layout.checker.items())
    return replace(
        layout,
        components=there,
        checker=layout.checker if known else {},
        lists_checker=CHECKER in layout.checker and _class_of(index, CHECKER) is not None,
    )


def choose_files(
    names: Collection[str], layout: Layout, *, where: str, field: str
) -> dict[str, str]:
    """The files to use, by the name they are wanted under; not those of a safety checker.

    The two differ where only half-precision weights are there, in `*.fp16.safetensors`.

    Args:
        names: All files, relative to the folder, with "/".
        layout: The parts that the folder's index lists.
        where: The folder or repository, for messages.
        field: Of the manifest.

    Raises:
        UserError: If something is missing, or there as a pickle only.
    """
    chosen = _choose(set(names), layout.components, layout, where, field)
    return dict(sorted({INDEX: INDEX, **chosen}.items()))


def choose_checker(
    names: Collection[str], layout: Layout, *, where: str, field: str
) -> dict[str, str]:
    """The files of the safety checker, as `choose_files` gives those of the other parts.

    None if it has no safetensors weights: the model draws without it, so that a pickle is no reason
    to refuse the model.

    Raises:
        UserError: If there are weights, and something else is missing.
    """
    names = set(names)
    for folder, component in layout.checker.items():
        if component.weights is not None and _weights(component.weights, _inside(names, folder)):
            return dict(sorted(_choose(names, layout.checker, layout, where, field).items()))
    return {}


def _choose(
    names: Collection[str],
    components: Mapping[str, Component],
    layout: Layout,
    where: str,
    field: str,
) -> dict[str, str]:
    chosen, missing = {}, []
    for folder, component in components.items():
        inside = _inside(names, folder)
        if not any(inside.issuperset(files) for files in component.configs):
            missing += [f"{folder}/{name}" for name in component.configs[0] if name not in inside]
        for name in inside:
            if name.endswith((".json", ".txt")) and ".safetensors.index." not in name:
                chosen[f"{folder}/{name}"] = f"{folder}/{name}"
        if component.weights is None:
            continue
        weights = _weights(component.weights, inside)
        if weights is None and any(name.endswith(_PICKLES) for name in inside):
            raise _pickle(where, f"the {folder}", field)
        if weights is None:
            missing.append(f"{folder}/{component.weights}.safetensors")
        for target, source in (weights or {}).items():
            chosen[f"{folder}/{target}"] = f"{folder}/{source}"
    if missing:
        raise _incomplete(where, f"is not complete: {', '.join(missing)} is missing", field, layout)
    return chosen


def check_parts(configs: Mapping[str, Any], layout: Layout, *, where: str, field: str) -> None:
    """Refuses a pipeline whose parts do not belong together, or that paints something else.

    Args:
        configs: The content of the parts' configuration files, by the part's name.
        layout: The parts that the folder's index lists.
        where: The folder or repository, for messages.
        field: Of the manifest.

    Raises:
        UserError: With what does not fit.
    """
    for name, config in configs.items():
        if not isinstance(config, dict):
            what = f"has a damaged configuration of the {name}"
            raise _incomplete(where, what, field, layout)
    misfit = layout.misfit(configs)
    if misfit is None:
        return
    if misfit.broken:
        raise _incomplete(where, misfit.what, field, layout)
    raise _unsupported(where, misfit.what, field)


def _class_of(index: Mapping[str, Any], part: str) -> str | None:
    """The class that model_index.json gives for a part."""
    entry = index.get(part)
    found: str | None = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    return found


def _inside(names: Collection[str], folder: str) -> set[str]:
    return {path.name for path in map(PurePosixPath, names) if str(path.parent) == folder}


def _weights(stem: str, inside: Collection[str]) -> Mapping[str, str] | None:
    whole, half = f"{stem}.safetensors", f"{stem}.fp16.safetensors"
    if whole in inside:
        return {whole: whole}
    index = f"{stem}.safetensors.index.json"
    shards = [re.fullmatch(rf"{re.escape(stem)}-\d+-of-(\d+)\.safetensors", n) for n in inside]
    found = {match.group(): match.group() for match in shards if match}
    totals = {int(match.group(1)) for match in shards if match}
    if index in inside and totals == {len(found)}:
        return {index: index, **found}
    return {whole: half} if half in inside else None


def _no_index(names: Collection[str], where: str, field: str) -> UserError:
    top = [name for name in names if "/" not in name]
    if any(name.endswith(_PICKLES) for name in top):
        return _pickle(where, "the model", field)
    if any(name.endswith(".safetensors") for name in top):
        return UserError(
            f"{where} is a single-file checkpoint, without {INDEX}",
            field=field,
            remedy="Convert it: StableDiffusionPipeline.from_single_file(FILE)"
            ".save_pretrained(NEW) in Python, with diffusers, and give NEW as spec.model.path.",
            reason="ModelNotSupported",
        )
    below = sorted(name for name in names if name.endswith(f"/{INDEX}"))
    if below:
        return UserError(
            f"{where} has no {INDEX}, but {below[0]}",
            field=field,
            remedy=f"Give the folder {PurePosixPath(below[0]).parent} in it.",
            reason="ModelIncomplete",
        )
    return _incomplete(where, f"has no {INDEX}, so it is no diffusers pipeline", field)


def _pickle(where: str, what: str, field: str) -> UserError:
    return UserError(
        f"{where} has the weights of {what} as a pickle only, and a pickle is never opened here, "
        "because loading one can run code",
        field=field,
        remedy=f"Look for a revision with safetensors weights. {CONVERT}",
        reason="PickleRefused",
    )


def _unsupported(where: str, what: str, field: str) -> UserError:
    return UserError(
        f"{where} {what}, which cannot be tuned here",
        field=field,
        remedy="Use a Stable Diffusion 1.x or 2.x, an SDXL or a Stable Diffusion 3 "
        f"({', '.join(LAYOUTS)}) with its own text encoders.",
        reason="ModelNotSupported",
    )


def _incomplete(where: str, what: str, field: str, layout: Layout | None = None) -> UserError:
    pipeline = layout.pipeline if layout else "StableDiffusionPipeline"
    return UserError(
        f"{where} {what}",
        field=field,
        remedy=f"Give a complete folder, as {pipeline}.save_pretrained writes it.",
        reason="ModelIncomplete",
    )
