"""Weights of the encoders that come from the hub: safetensors only, downloaded once.

A folder `<models>/encoders/<encoder's name>` with config.json, model.safetensors and CLIP's
tokenizer, as `transformers` saves them, is all an encoder needs: downloads end there, and where
there is no network an administrator puts one there.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreambooth.errors import InfrastructureError, UserError
from dreambooth.quality.dino import DINO_VITS16_CONFIG, from_timm
from dreambooth.workspace.atomic import (
    disk_errors,
    link_or_copy,
    publish_dir_once,
    temporary_sibling,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
FIELD = "spec.evaluation.encoder"


@dataclass(frozen=True)
class HubWeights:
    """Where an encoder's weights are.

    Attributes:
        name: The encoder's.
        repo: On the hub.
        revision: A commit, or a branch of which the commit is noted when it is downloaded.
        files: What is needed of the repository.
        config: Written where the repository has none that `transformers` reads.
        convert: Turns the repository's weights into `transformers`' names.
    """

    name: str
    repo: str
    revision: str
    files: tuple[str, ...]
    config: dict[str, Any] | None = None
    convert: "Callable[[dict[str, Tensor]], dict[str, Tensor]] | None" = None


# Facebook's own repository has a pickle only; this one has the same weights as safetensors.
DINO_VITS16 = HubWeights(
    name="dino-vits16",
    repo="timm/vit_small_patch16_224.dino",
    revision="main",
    files=(WEIGHTS,),
    config=DINO_VITS16_CONFIG,
    convert=from_timm,
)
# The commit that adds safetensors to the repository, whose main branch has a pickle only.
CLIP_VIT_B32 = HubWeights(
    name="clip-vit-b32",
    repo="openai/clip-vit-base-patch32",
    revision="c237dc49a33fc61debc9276459120b7eac67e7ef",
    files=(CONFIG, WEIGHTS, "vocab.json", "merges.txt", "tokenizer_config.json"),
)


FROM_THE_HUB = {weights.name: weights for weights in (DINO_VITS16, CLIP_VIT_B32)}


def provide(encoder: str, models_dir: Path) -> None:
    """Sees to it that an encoder's weights are there, before what they measure is made.

    Raises:
        UserError: If its folder has no safetensors.
        InfrastructureError: If the hub does not give them or the disk does not take them.
    """
    if encoder in FROM_THE_HUB:
        _weights_file(encoder_folder(FROM_THE_HUB[encoder], models_dir))


def encoder_folder(wanted: HubWeights, models_dir: Path) -> Path:
    """The folder with an encoder's weights, downloaded if it is not there.

    Raises:
        InfrastructureError: If the hub does not give them or the disk does not take them.
    """
    folder = models_dir / "encoders" / wanted.name
    if not folder.is_dir():
        _publish(wanted, _download(wanted, models_dir / "hub"), folder)
    return folder


def read_weights(folder: Path) -> dict[str, "Tensor"]:
    """The weights in `folder`.

    Raises:
        UserError: If there is no model.safetensors; a pickle is never opened.
    """
    from safetensors.torch import load_file

    return load_file(_weights_file(folder))


def _weights_file(folder: Path) -> Path:
    file = folder / WEIGHTS
    if not file.is_file():
        raise UserError(
            f"there is no {WEIGHTS} in {folder}",
            field=FIELD,
            remedy=f"Put {CONFIG} and {WEIGHTS} there, or remove the folder and they are "
            "downloaded; a pickle is not opened, because loading one can run code.",
            reason="EncoderIncomplete",
        )
    return file


def _download(wanted: HubWeights, cache: Path) -> Path:
    """The repository's snapshot; resumes, and takes a token from HF_TOKEN."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                wanted.repo,
                revision=wanted.revision,
                allow_patterns=list(wanted.files),
                cache_dir=cache,
            )
        )
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            with disk_errors(cache):
                raise
        raise InfrastructureError(
            f"the encoder {wanted.name} could not be downloaded from the hub repository "
            f"{wanted.repo} ({type(error).__name__})",
            field=FIELD,
            remedy="Check the network and run again, or use encoder: efficientnet-lite0, which "
            "needs none.",
            reason="EncoderUnavailable",
        ) from error


def _publish(wanted: HubWeights, snapshot: Path, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    temporary = temporary_sibling(folder)
    with disk_errors(folder):
        temporary.mkdir(parents=True)
        try:
            for name in wanted.files:
                if (snapshot / name).is_file():
                    link_or_copy((snapshot / name).resolve(), temporary / name)
            if wanted.convert is not None:
                weights = wanted.convert(load_file(snapshot / WEIGHTS))
                (temporary / WEIGHTS).unlink()
                save_file(weights, temporary / WEIGHTS)
            if wanted.config is not None:
                write_json(temporary / CONFIG, wanted.config)
            source = {"repo": wanted.repo, "revision": snapshot.name}
            write_json(temporary / "source.json", source)
            publish_dir_once(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
