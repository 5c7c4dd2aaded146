"""From samples to pixels, many at once, on the device that trains."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tools.model.colours import turn_matrices
from tools.model.picture import SIZE
from tools.model.samples import Ground


@dataclass(frozen=True)
class Composer:
    """Puts drawings on backgrounds.

    Attributes:
        pixels: Drawings, [N, 4, SIZE, SIZE] uint8 RGBA.
        scenes: Bank of backgrounds, [M, 3, SIZE, SIZE] uint8.
        turns: What RGB is multiplied by, [TURNS, 3, 3].
        columns: Samples, named as in `Sample`, each with one row a sample.
    """

    pixels: Tensor
    scenes: Tensor
    turns: Tensor
    columns: Mapping[str, Tensor]

    @classmethod
    def on(
        cls,
        device: torch.device,
        pixels: NDArray[np.uint8],
        scenes: NDArray[np.uint8],
        columns: Mapping[str, NDArray[np.generic]],
    ) -> Self:
        """Moves everything to the device."""
        return cls(
            torch.from_numpy(pixels).to(device),
            torch.from_numpy(scenes).to(device),
            torch.from_numpy(turn_matrices()).to(device),
            {name: torch.from_numpy(column).to(device) for name, column in columns.items()},
        )

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.columns["picture"])

    def compose(self, which: Tensor) -> Tensor:
        """Pictures [B, 3, SIZE, SIZE] in -1..1 of the samples `which`, [B]."""
        row = {name: column[which] for name, column in self.columns.items()}
        drawing = self._drawings(row)
        colour, alpha = drawing[:, :3], drawing[:, 3:]
        composed = colour + self._backgrounds(row) * (1 - alpha)
        return composed.clamp(0, 1) * 2 - 1

    def _drawings(self, row: Mapping[str, Tensor]) -> Tensor:
        """Turned and placed, colour premultiplied: [B, 4, SIZE, SIZE] in 0..1."""
        rgba = self.pixels[row["picture"]].float() / 255
        alpha = rgba[:, 3:]
        turned = torch.einsum("boc,bchw->bohw", self.turns[row["turn"]], rgba[:, :3])
        premultiplied = torch.cat([turned.clamp(0, 1) * alpha, alpha], 1)
        zoom, (right, down) = 1 / row["scale"], row["shift"].unbind(1)
        none = torch.zeros_like(zoom)
        across = zoom * row["flip"]
        to_source = torch.stack(
            [
                torch.stack([across, none, -right * across], 1),
                torch.stack([none, zoom, -down * zoom], 1),
            ],
            1,
        )
        places = F.affine_grid(to_source, list(premultiplied.shape), align_corners=False)
        return F.grid_sample(premultiplied, places, align_corners=False)

    def _backgrounds(self, row: Mapping[str, Tensor]) -> Tensor:
        """[B, 3, SIZE, SIZE] in 0..1; plain ones are gradients between equal colours."""
        line = torch.linspace(-0.5, 0.5, SIZE, device=self.pixels.device)
        angle = row["angle"][:, None, None]
        share = torch.cos(angle) * line[None, None, :] + torch.sin(angle) * line[None, :, None]
        share = (share + 0.5).clamp(0, 1)[:, None]
        ground = row["ground"][:, None, None, None]
        first = row["first"][:, :, None, None] / 255
        second = row["second"][:, :, None, None] / 255
        second = torch.where(ground == Ground.GRADIENT, second, first)
        scenes = self.scenes[row["scene"]].float() / 255
        mirrored = (row["scene_flip"] < 0)[:, None, None, None]
        scenes = torch.where(mirrored, scenes.flip(-1), scenes)
        return torch.where(ground == Ground.SCENE, scenes, first * (1 - share) + second * share)
