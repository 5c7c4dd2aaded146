"""The safety checker that Stable Diffusion 1.x comes with, and what is kept of it.

CLIP's view of a picture (Radford et al., arXiv 2103.00020) is compared with seventeen embeddings,
each with a threshold of its own; three more make all thresholds stricter. It is what diffusers'
`StableDiffusionSafetyChecker` computes, for a whole batch on the device and without waiting for it.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import Tensor, nn
from transformers import CLIPImageProcessor

from dreambooth.errors import UserError
from dreambooth.models.inventory import INDEX, choose_checker, read_index
from dreambooth.models.layouts import CHECKER
from dreambooth.models.loading import load_networks, reading
from dreambooth.workspace.atomic import link_or_copy, read_json, write_json

EXTRACTOR = "feature_extractor"
# What one of the three embeddings adds to all scores.
STRICTER = 0.01
# Scores are rounded to so many parts before they are compared with nought, as diffusers does.
PARTS = 1000.0
_BICUBIC = 3


class SafetyChecker:
    """Flags pictures; see `load`."""

    def __init__(self, network: Any, processor: Any) -> None:
        """Takes a `StableDiffusionSafetyChecker` and its `CLIPImageProcessor`."""
        self._network: Any = network.eval().requires_grad_(False)
        self._edge, self._side = processor.size["shortest_edge"], processor.crop_size["height"]
        self._mean = torch.tensor(processor.image_mean).view(1, 3, 1, 1)
        self._deviation = torch.tensor(processor.image_std).view(1, 3, 1, 1)
        embeds = torch.cat([network.special_care_embeds, network.concept_embeds])
        self._embeds = F.normalize(embeds.detach().float())
        self._special = len(network.special_care_embeds)
        weights = torch.cat([network.special_care_embeds_weights, network.concept_embeds_weights])
        self._thresholds = weights.detach().float()

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "SafetyChecker":
        """The checker in the diffusers folder of a model, from the disk alone; safetensors only.

        On a GPU its network computes in float16: thresholds are a few thousandths apart.

        Raises:
            UserError: If a part is missing or not what its configuration says.
        """
        with reading(folder / CHECKER, "safety checker"):
            processor = CLIPImageProcessor.from_pretrained(
                folder / EXTRACTOR, local_files_only=True
            )
            networks = load_networks(folder, {CHECKER: StableDiffusionSafetyChecker}, None)
        network = networks[CHECKER]
        _check_processor(processor, network, folder)
        return cls(network, processor).to(device)

    def to(self, device: torch.device) -> "SafetyChecker":
        """Moves all of it, and the network to what it computes with there."""
        self._network.to(device, torch.float16 if device.type == "cuda" else torch.float32)
        for name in ("_mean", "_deviation", "_embeds", "_thresholds"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    @torch.no_grad()
    def flags(self, pictures: Tensor) -> Tensor:
        """Which of `pictures` are flagged, `[B]` bool on the device.

        Args:
            pictures: `[B, H, W, 3]` uint8, square, on the device.
        """
        pixels = self._prepare(pictures).to(self._network.dtype)
        pooled = self._network.vision_model(pixels)[1]
        embedded = F.normalize(self._network.visual_projection(pooled).float())
        scores = embedded @ self._embeds.T - self._thresholds
        special, concepts = scores.split([self._special, scores.shape[1] - self._special], dim=1)
        stricter = STRICTER * (special * PARTS).round().gt(0).any(dim=1, keepdim=True)
        flagged: Tensor = ((concepts + stricter) * PARTS).round().gt(0).any(dim=1)
        return flagged

    def _prepare(self, pictures: Tensor) -> Tensor:
        """`[B, 3, S, S]` float32 as CLIP was trained: the middle, in CLIP's mean and deviation."""
        pixels = pictures.permute(0, 3, 1, 2).float()
        if pixels.shape[-1] != self._edge:
            # As Pillow does it: first the rows, then the columns, both to whole grey levels.
            for size in ((pixels.shape[-2], self._edge), (self._edge, self._edge)):
                pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True)
                pixels = pixels.round().clamp(0, 255)
        start = (self._edge - self._side) // 2
        end = start + self._side
        return (pixels[:, :, start:end, start:end] / 255.0 - self._mean) / self._deviation


def keep_checker(base: Path, tuned: Path) -> None:
    """Gives the diffusers folder `tuned` the checker of the one in `base`, by links.

    Plain diffusers then checks its pictures as it does those of the base model.
    """
    where = str(base)
    layout = read_index((base / INDEX).read_text(encoding="utf-8"), where=where, field="spec.model")
    names = [path.relative_to(base).as_posix() for path in base.glob("*/*") if path.is_file()]
    files = choose_checker(names, layout, where=where, field="spec.model")
    for target, source in files.items():
        (tuned / target).parent.mkdir(exist_ok=True)
        link_or_copy((base / source).resolve(), tuned / target)
    index: dict[str, Any] = read_json(tuned / INDEX) or {}
    index[CHECKER] = ["stable_diffusion", StableDiffusionSafetyChecker.__name__]
    # What transformers called it when the first models were published is gone.
    index[EXTRACTOR] = ["transformers", "CLIPImageProcessor"]
    index["requires_safety_checker"] = True
    write_json(tuned / INDEX, index)


def _check_processor(processor: Any, network: nn.Module, folder: Path) -> None:
    """Refuses a feature extractor that prepares pictures otherwise than `SafetyChecker` does."""
    config: Any = network.config
    crop, steps = processor.crop_size, ("resize", "center_crop", "rescale", "normalize")
    fits = (
        all(getattr(processor, f"do_{step}") for step in steps)
        and processor.resample == _BICUBIC
        and crop["height"] == crop["width"] == config.vision_config.image_size
        and (processor.size["shortest_edge"] or 0) >= crop["height"]
    )
    if not fits:
        raise UserError(
            f"the {EXTRACTOR} in {folder} does not prepare pictures for its {CHECKER}",
            field="spec.model",
            remedy="Copy the model again, or set spec.model.safetyChecker to disabled.",
            reason="ModelNotLoadable",
        )
