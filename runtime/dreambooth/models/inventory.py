"""Which files of a diffusers folder are used, and what is wrong if they are not there.

Only safetensors weights: a pickle runs code when it is loaded. Judged by names alone, so that a
hub repository is refused before gigabytes of it are downloaded.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dreambooth.errors import UserError

INDEX = "model_index.json"
PIPELINES = ("StableDiffusionPipeline",)
PREDICTION_TYPES = ("epsilon", "v_prediction")
# Where the parts say what they are.
CONFIGS = {
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "text_encoder": "text_encoder/config.json",
    "scheduler": "scheduler/scheduler_config.json",
}
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".h5", ".msgpack")
_CONVERT = (
    "Convert it where you trust it: StableDiffusionPipeline.from_pretrained(OLD)"
    ".save_pretrained(NEW, safe_serialization=True) in Python, with diffusers, and give NEW as "
    "spec.model.path."
)


@dataclass(frozen=True)
class _Component:
    """A part of the pipeline: the classes it may have, and the files it needs.

    Attributes:
        classes: As model_index.json names them; any when empty.
        configs: Alternatives, each a set of files that is enough.
        weights: The weights' name without `.safetensors`; None if it has none.
    """

    classes: tuple[str, ...]
    configs: tuple[tuple[str, ...], ...]
    weights: str | None


_COMPONENTS = {
    "unet": _Component(("UNet2DConditionModel",), (("config.json",),), "diffusion_pytorch_model"),
    "vae": _Component(("AutoencoderKL",), (("config.json",),), "diffusion_pytorch_model"),
    "text_encoder": _Component(("CLIPTextModel",), (("config.json",),), "model"),
    "tokenizer": _Component(
        ("CLIPTokenizer", "CLIPTokenizerFast"),
        (("vocab.json", "merges.txt"), ("tokenizer.json",)),
        None,
    ),
    "scheduler": _Component((), (("scheduler_config.json",),), None),
}


def read_index(text: str, *, where: str, field: str) -> dict[str, Any]:
    """model_index.json, if it is that of a pipeline that can be tuned.

    Raises:
        UserError: Otherwise; says which pipelines can.
    """
    try:
        index = json.loads(text)
    except ValueError as error:
        raise _incomplete(where, f"has a damaged {INDEX}", field) from error
    if not isinstance(index, dict):
        raise _incomplete(where, f"has a damaged {INDEX}", field)
    pipeline = index.get("_class_name")
    if pipeline not in PIPELINES:
        raise _unsupported(where, f"is a {pipeline}", field)
    for name, component in _COMPONENTS.items():
        entry = index.get(name)
        found = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if found is None:
            raise _incomplete(where, f"has no {name} in its {INDEX}", field)
        if component.classes and found not in component.classes:
            raise _unsupported(where, f"has the {name} {found}", field)
    return index


def choose_files(names: Collection[str], *, where: str, field: str) -> dict[str, str]:
    """The files to use, by the name they are wanted under.

    The two differ where only half-precision weights are there, in `*.fp16.safetensors`.

    Args:
        names: All files, relative to the folder, with "/".
        where: The folder or repository, for messages.
        field: Of the manifest.

    Raises:
        UserError: If something is missing, or there as a pickle only.
    """
    names = set(names)
    if INDEX not in names:
        raise _no_index(names, where, field)
    chosen = {INDEX: INDEX}
    missing = []
    for folder, component in _COMPONENTS.items():
        inside = {path.name for path in map(PurePosixPath, names) if str(path.parent) == folder}
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
        raise _incomplete(where, f"is not complete: {', '.join(missing)} is missing", field)
    return dict(sorted(chosen.items()))


def check_parts(configs: Mapping[str, Any], *, where: str, field: str) -> None:
    """Refuses a pipeline whose parts do not belong together, or that paints something else.

    Args:
        configs: The content of the parts' configuration files, by the part's name.
        where: The folder or repository, for messages.
        field: Of the manifest.

    Raises:
        UserError: With what does not fit.
    """
    for name, config in configs.items():
        if not isinstance(config, dict):
            raise _incomplete(where, f"has a damaged configuration of the {name}", field)
    unet, vae, text = configs["unet"], configs["vae"], configs["text_encoder"]
    takes, makes = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if takes != makes:
        what = f"has a unet for {takes} channels where its vae makes {makes}, as for inpainting"
        raise _unsupported(where, what, field)
    width, hidden = unet.get("cross_attention_dim", 1280), text.get("hidden_size", 512)
    if isinstance(width, int) and width != hidden:
        what = f"has a unet for texts of width {width} and a text encoder of width {hidden}"
        raise _incomplete(where, what, field)
    predicts = configs["scheduler"].get("prediction_type", "epsilon")
    if predicts not in PREDICTION_TYPES:
        raise _unsupported(where, f"predicts {predicts!r}", field)


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
        remedy=f"Look for a revision with safetensors weights. {_CONVERT}",
        reason="PickleRefused",
    )


def _unsupported(where: str, what: str, field: str) -> UserError:
    return UserError(
        f"{where} {what}, which cannot be tuned here",
        field=field,
        remedy="Use a Stable Diffusion 1.x or 2.x (StableDiffusionPipeline with a CLIP text "
        "encoder).",
        reason="ModelNotSupported",
    )


def _incomplete(where: str, what: str, field: str) -> UserError:
    return UserError(
        f"{where} {what}",
        field=field,
        remedy="Give a complete folder, as StableDiffusionPipeline.save_pretrained writes it.",
        reason="ModelIncomplete",
    )
