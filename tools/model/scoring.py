"""A number for how good a model is, so that two can be compared.

Drawn pictures are compared with the real ones of the data set, by the cosine of an image encoder
that was trained on photos and has nothing to do with the recipe. Figures of different encoders, or
of different data sets, cannot be compared.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tools.model import autoencoder
from tools.model.composition import Composer
from tools.model.dataset import Dataset
from tools.model.errors import RecipeError
from tools.model.picture import decode
from tools.model.records import Record
from tools.model.samples import VARIANTS, make_samples
from tools.model.sampling import Painter
from tools.model.scenes import scene_bank

NOUNS = (
    *("robot", "dog", "cat", "car", "person", "zombie", "ghost", "tree", "bird", "fish", "alien"),
    *("house", "backpack", "pizza", "teddy bear", "clock", "rocket", "flower", "penguin"),
    *("teapot", "vase", "sneaker", "candle"),
)
# Real pictures of a noun: more make no difference.
_REFERENCES = 32
_RECONSTRUCTED = 64


class Encoder(Protocol):
    """Maps pictures to unit vectors."""

    @property
    def name(self) -> str:
        """Stands beside the figures."""

    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """[N, D]."""


@dataclass(frozen=True)
class Likeness:
    """How well pictures fit the nouns they were drawn for.

    Attributes:
        recognised: Share of pictures whose nearest real picture is one of the noun.
        nearness: Mean cosine to the nearest real picture of the noun.
    """

    recognised: float
    nearness: float


@dataclass(frozen=True)
class Score:
    """What a model reaches.

    Attributes:
        drawn: Of its pictures.
        real: The same of the real pictures, each compared with all others: the ceiling.
        by_noun: Share recognised of each noun.
        psnr: Of composed pictures, encoded and decoded, in dB.
    """

    encoder: str
    pictures: int
    drawn: Likeness
    real: Likeness
    by_noun: dict[str, float]
    psnr: float

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


@dataclass(frozen=True)
class References:
    """Real pictures: embeddings [N, D], and the nouns of each."""

    embeddings: Tensor
    nouns: Sequence[Sequence[str]]

    def likeness(self, embeddings: Tensor, wanted: Sequence[str]) -> tuple[list[bool], Likeness]:
        """Whether each picture [M, D] is nearest to what was wanted, and the means."""
        return self._judge(embeddings @ self.embeddings.T, wanted)

    def own_likeness(self, wanted: Sequence[str]) -> Likeness:
        """Of the real pictures themselves, each without itself."""
        cosines = self.embeddings @ self.embeddings.T
        cosines.fill_diagonal_(-1)
        return self._judge(cosines, wanted)[1]

    def _judge(self, cosines: Tensor, wanted: Sequence[str]) -> tuple[list[bool], Likeness]:
        fits = torch.tensor([[noun in nouns for nouns in self.nouns] for noun in wanted])
        right = fits[torch.arange(len(wanted)), cosines.argmax(1)]
        nearest = cosines.masked_fill(~fits, -1).amax(1)
        return right.tolist(), Likeness(
            round(right.float().mean().item(), 4), round(nearest.mean().item(), 4)
        )


def score(
    folder: Path, dataset: Dataset, encoder: Encoder, device: torch.device, each: int
) -> Score:
    """Draws `each` pictures of every noun that the data set has, and judges them."""
    painter = Painter(folder, device)
    nouns = [noun for noun in NOUNS if any(noun in record.nouns for record in dataset.records)]
    wanted = [noun for noun in nouns for _ in range(each)]
    drawn = painter.draw([f"a photo of {_article(noun)} {noun}" for noun in wanted])
    chosen = choose_references(dataset.records)
    images = [on_white(dataset.pictures[index]) for index in chosen]
    references = References(
        encoder.embed(images), [dataset.records[index].nouns for index in chosen]
    )
    right, likeness = references.likeness(encoder.embed(drawn), wanted)
    firsts = [next(noun for noun in NOUNS if noun in nouns) for nouns in references.nouns]
    return Score(
        encoder=encoder.name,
        pictures=len(drawn),
        drawn=likeness,
        real=references.own_likeness(firsts),
        by_noun={noun: _share(right, wanted, noun) for noun in nouns},
        psnr=round(autoencoder.psnr(painter.vae, _unseen(dataset, device), _RECONSTRUCTED), 2),
    )


def load_encoder() -> Encoder:
    """The encoder that the project measures with offline.

    Raises:
        RecipeError: If it isn't installed.
    """
    try:
        from dreambooth.quality.encoders import EfficientNetLite0

        return EfficientNetLite0()
    except ImportError as error:
        raise RecipeError(
            f"No score: {error}. It needs the runtime's dependencies; `make setup` installs them."
        ) from error


def choose_references(records: Sequence[Record]) -> list[int]:
    """Indices of real pictures, evenly spaced among all of each noun; each once."""
    chosen: set[int] = set()
    for noun in NOUNS:
        having = [index for index, record in enumerate(records) if noun in record.nouns]
        spaced = np.linspace(0, len(having) - 1, min(_REFERENCES, len(having))).astype(int)
        chosen.update(having[place] for place in spaced)
    return sorted(chosen)


def on_white(picture: bytes) -> Image.Image:
    """A picture of the data set, opaque."""
    image = Image.fromarray(decode(picture).transpose(1, 2, 0), "RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _unseen(dataset: Dataset, device: torch.device) -> Composer:
    """Samples that training doesn't use: of the same drawings, but of another seed."""
    columns, _ = make_samples(dataset.records, _RECONSTRUCTED, seed=-1)
    return Composer.on(device, dataset.pixels(), scene_bank(VARIANTS), columns)


def _share(right: Sequence[bool], wanted: Sequence[str], noun: str) -> float:
    of_noun = [fits for fits, word in zip(right, wanted, strict=True) if word == noun]
    return sum(of_noun) / len(of_noun)


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
