"""Reading the parts of a diffusers folder: whole, from the disk alone, safetensors only."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import CLIPTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from dreambooth.errors import UserError
from dreambooth.models.files import read_header

# Types of weights as safetensors writes them.
STORED = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


@contextmanager
def reading(folder: Path, kind: str) -> Iterator[None]:
    """Says which folder it was, and that it should be one of a `kind`, if it cannot be read.

    Raises:
        UserError: For whatever goes wrong inside.
    """
    # Loading is reported by the pipeline; the libraries' own bars would tear it apart.
    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Anything can be wrong in files that people bring, and the libraries check little.
        raise UserError(
            f"the model in {folder} cannot be loaded: {_first_line(error)}",
            field="spec.model",
            remedy=f"Give a complete {kind} folder in the diffusers layout, with safetensors "
            "weights.",
            reason="ModelNotLoadable",
        ) from error


def load_networks(
    folder: Path, classes: Mapping[str, Any], dtype: torch.dtype | None, *, weights: bool = True
) -> dict[str, Any]:
    """The networks of `classes`, by the part's name.

    Args:
        folder: In the diffusers layout.
        classes: diffusers' or transformers' class of each part.
        dtype: Of their weights; None keeps that of the files, which are then read only when
            they are used.
        weights: False makes them of shapes alone, on torch's meta device.

    Raises:
        UserError: If weights are missing, which the libraries fill with random numbers.
    """
    if not weights:
        return {name: _without_weights(folder / name, cls) for name, cls in classes.items()}
    networks = {}
    for name, cls in classes.items():
        key = "dtype" if issubclass(cls, PreTrainedModel) else "torch_dtype"
        networks[name], info = cls.from_pretrained(
            folder / name,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **{key: dtype or stored_dtype(folder / name)},
        )
        _check_complete(name, info["missing_keys"])
    return networks


def stored_dtype(folder: Path) -> torch.dtype:
    """The type of the weights in `folder`'s safetensors files; float32 if there are several."""
    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            header = read_header(opened)
        # What is none is for the library to say.
        found |= {tensor["dtype"] for tensor in header.tensors.values()} if header else set()
    return STORED.get(found.pop(), torch.float32) if len(found) == 1 else torch.float32


def move(network: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
    """Moves weights and buffers to `device` and there to `dtype` if given, layer by layer.

    `Module.to` converts before it sends: on the CPU, and in the processes that Ray gives one core
    that takes seconds.
    """

    def moved(part: nn.Module) -> None:
        part.to(device)
        if dtype is not None:
            part.to(dtype)

    # Children come before their parents, so that only one layer is there twice at a time.
    network.apply(moved)


def _without_weights(folder: Path, cls: Any) -> Any:
    with torch.device("meta"):
        if issubclass(cls, PreTrainedModel):
            return cls(cls.config_class.from_pretrained(folder, local_files_only=True))
        return cls.from_config(cls.load_config(folder, local_files_only=True))


def load_clip_tokenizers(folder: Path) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """The tokenizers of a model with two CLIP text encoders."""
    first, second = (
        CLIPTokenizer.from_pretrained(folder / name, local_files_only=True)
        for name in ("tokenizer", "tokenizer_2")
    )
    return first, second


def _check_complete(part: str, missing: Collection[str]) -> None:
    if missing:
        names = sorted(missing)
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise UserError(
            f"the weights of the {part} have no {some}",
            field="spec.model",
            remedy="Copy the model again, or convert it again with the diffusers that made it.",
            reason="ModelNotLoadable",
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
