"""Sets of pictures, and a hand that draws what a set asks for."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreambooth.sampling.files import write_png
from dreambooth.sampling.picture_set import Flagged, PictureSet, PictureSetState
from dreambooth.sampling.settings import PictureRequest, SamplingSettings
from dreambooth.workspace.digest import file_digest

Picture = NDArray[np.uint8]


def a_set(
    folder: Path,
    count: int,
    *,
    gated: bool = False,
    prompt: str = "a dog",
    flagged: Flagged = Flagged.REDRAWN,
    **key: Any,
) -> PictureSet:
    return PictureSet(
        folder=folder,
        key={"model": "m", "prompt": prompt, **key},
        prompt=prompt,
        seed=0,
        count=count,
        settings=SamplingSettings("dpmsolver++", 2, 1.0),
        gated=gated,
        prompt_field="spec.classImages.prompt",
        flagged=flagged,
        provenance={"model": "tiny"},
    )


def noise(seed: int) -> Picture:
    """A picture that is like no other."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


def from_seed(request: PictureRequest) -> Picture:
    """What a model does: the seed decides."""
    return noise(request.seed)


def spoiled(bad: Mapping[tuple[int, int], Picture]) -> Callable[[PictureRequest], Picture]:
    """As `from_seed`, but for the candidates `bad` by index and attempt."""

    def draw(request: PictureRequest) -> Picture:
        return bad.get((request.index, request.attempt), from_seed(request))

    return draw


def fill_by_hand(
    pictures: PictureSet,
    draw: Callable[[PictureRequest], Picture] = from_seed,
    order: Callable[[list[PictureRequest]], list[PictureRequest]] = list,
) -> list[PictureRequest]:
    """Draws until the set is complete; returns what was drawn."""
    state = PictureSetState(pictures)
    drawn: list[PictureRequest] = []
    while requests := order(list(state.requests())):
        for request in requests:
            file = pictures.file(request.index, request.attempt)
            write_png(file, draw(request), {"seed": request.seed})
            state.add(request.index, request.attempt, file_digest(file))
            drawn.append(request)
        state.settle()
    assert state.complete
    return drawn
