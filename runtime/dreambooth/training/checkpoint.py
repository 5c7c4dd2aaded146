"""Training state on the disk: safetensors and JSON, visible only when whole.

A checkpoint holds everything a step depends on. Data order and noise are functions of the step
(see `schedule`), so that is: the trained weights, the optimizer's moments, the step, and the
losses so far for the report.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dreambooth.errors import InfrastructureError
from dreambooth.training.tensor_files import write_tensors
from dreambooth.workspace.atomic import (
    disk_errors,
    publish_dir,
    read_json,
    remove_tree,
    sweep_temporaries,
    temporary_sibling,
    write_text,
)

_NAME = re.compile(r"step-(\d{6})")
# Says which training writes the checkpoints.
OWNER = "owner"


@dataclass(frozen=True)
class Checkpoint:
    """Training state after `step` optimizer steps."""

    step: int
    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    meta: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one job and one set of training inputs."""

    def __init__(self, folder: Path, key: str, owner: str | None = None) -> None:
        """`key` is the digest of the stage's inputs; checkpoints of another key are removed.

        `owner` names the training that writes here, as `take_over` did; None writes unasked.
        """
        self._folder = folder
        self._key = key
        self._owner = owner

    def prepare(self) -> None:
        """Removes torn writes and checkpoints that belong to other inputs."""
        sweep_temporaries(self._folder)
        for step in self.steps():
            meta = read_json(self.path(step) / "meta.json")
            if meta is None or meta.get("key") != self._key:
                remove_tree(self.path(step))

    def path(self, step: int) -> Path:
        """The folder of the checkpoint after `step` steps."""
        return self._folder / f"step-{step:06d}"

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        if not self._folder.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self._folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON part of one checkpoint."""
        value: dict[str, Any] = json.loads((self.path(step) / "meta.json").read_text())
        return value

    def take_over(self, owner: str) -> None:
        """From now on only `owner` may write here."""
        write_text(self._folder / OWNER, owner)

    def check_owner(self) -> None:
        """Keeps a training that was given up from writing beside the one that goes on.

        Workers may outlive their driver's machine by a minute, and training at the same steps.

        Raises:
            InfrastructureError: If another training has taken over.
        """
        if self._owner is None:
            return
        try:
            found = (self._folder / OWNER).read_text(encoding="utf-8")
        except OSError:
            found = "nobody"
        if found != self._owner:
            raise InfrastructureError(
                "another run of this job has taken over its training",
                field=str(self._folder),
                remedy="Nothing is lost: that one goes on from the last checkpoint.",
                reason="TrainingSuperseded",
            )

    def save(self, checkpoint: Checkpoint) -> None:
        """Publishes a checkpoint; nothing of it is visible before all of it is."""
        self.check_owner()
        final = self.path(checkpoint.step)
        temporary = temporary_sibling(final)
        with disk_errors(final):
            temporary.mkdir(parents=True)
            try:
                write_tensors(temporary / "weights.safetensors", checkpoint.weights)
                write_tensors(temporary / "moments.safetensors", checkpoint.moments)
                meta = {"key": self._key, "step": checkpoint.step, **checkpoint.meta}
                (temporary / "meta.json").write_text(json.dumps(meta))
                publish_dir(temporary, final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise

    def load(self, step: int) -> Checkpoint:
        """Reads the checkpoint after `step` steps."""
        folder = self.path(step)
        return Checkpoint(
            step=step,
            weights=load_file(folder / "weights.safetensors"),
            moments=load_file(folder / "moments.safetensors"),
            meta=self.meta(step),
        )

    def load_weights(self, step: int) -> dict[str, Tensor]:
        """The trained weights alone."""
        return load_file(self.path(step) / "weights.safetensors")

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read, or None: a damaged one only costs its steps."""
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except (OSError, ValueError, SafetensorError):
                continue
        return None

    def keep_only(self, steps: set[int]) -> None:
        """Removes all checkpoints but those of `steps`."""
        for step in self.steps():
            if step not in steps:
                remove_tree(self.path(step))


def optimizer_moments(
    optimizer: torch.optim.Optimizer, names: dict[Tensor, str]
) -> dict[str, Tensor]:
    """The optimizer's state as flat named tensors, `<parameter>|<entry>`."""
    moments = {}
    for parameter, state in optimizer.state.items():
        for entry, value in state.items():
            moments[f"{names[parameter]}|{entry}"] = torch.as_tensor(value)
    return moments


def restore_moments(
    optimizer: torch.optim.Optimizer, names: dict[Tensor, str], moments: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_moments`."""
    parameters = {name: parameter for parameter, name in names.items()}
    for key, value in moments.items():
        name, entry = key.rsplit("|", 1)
        parameter = parameters[name]
        if entry == "step":
            # The counter lives where the optimizer put it: on the device only if fused there.
            on_device = parameter.device.type == "cuda"
            optimizer.state[parameter][entry] = value.to(parameter.device if on_device else "cpu")
            continue
        # Fused kernels walk through memory: a moment has to lie there as its parameter does, which
        # in a channels-last model is not how it was saved.
        moment = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
        optimizer.state[parameter][entry] = moment.copy_(value)
