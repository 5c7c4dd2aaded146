"""Which checkpoint to keep, by what its pictures look like.

Loss says little about a diffusion model's pictures. At every checkpoint the trained model draws
the subject and its class from fixed noise; the kept checkpoint is the one closest to the photos
among those that have left the class alone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dreambooth.quality.encoders import Encoder
from dreambooth.quality.metrics import class_similarity, diversity, subject_fidelity
from dreambooth.sampling.sampler import Sampler
from dreambooth.sampling.settings import BATCH_SIZE, SamplingSettings, picture_seed
from dreambooth.spans import Activity, span

# The class may come closer to the subject by this share of the gap, and lose this share of its
# diversity, before a checkpoint is marked down.
DRIFT_ALLOWED = 0.10
DIVERSITY_KEPT = 0.90
PENALTY = 2.0
# Selection must not look at the noise that the pictures of the evaluation start from.
SELECTION_SEED = 0x5E1EC7
# Enough to tell checkpoints apart; the pictures are not shown to anybody.
SELECTION_STEPS = 12


@dataclass(frozen=True)
class Measurement:
    """What a checkpoint's pictures look like, all cosines of the encoder.

    Attributes:
        subject: Mean similarity of subject pictures to the photos.
        class_similarity: Mean similarity of class pictures to the photos.
        class_diversity: One minus the mean similarity of class pictures among themselves.
    """

    subject: float
    class_similarity: float
    class_diversity: float

    def to_json(self) -> dict[str, float]:
        """JSON-able."""
        return asdict(self)


def score(measured: Measurement, base: Measurement, ceiling: float) -> float:
    """Share of the gap between base model and photos that is closed, less penalties.

    Args:
        measured: The checkpoint.
        base: The model before training.
        ceiling: Similarity of the photos among themselves.
    """
    gap = max(ceiling - base.subject, 1e-6)
    closed = (measured.subject - base.subject) / gap
    drift = (measured.class_similarity - base.class_similarity) / gap
    kept = measured.class_diversity / max(base.class_diversity, 1e-6)
    penalty = max(0.0, drift - DRIFT_ALLOWED) + max(0.0, DIVERSITY_KEPT - kept)
    return closed - PENALTY * penalty


class CheckpointJudge:
    """Draws and measures with the model under training."""

    def __init__(
        self,
        sampler: Sampler,
        encoder: Encoder,
        photos: Sequence[Image.Image],
        prompts: tuple[str, str],
        settings: SamplingSettings,
    ) -> None:
        """`prompts` are the subject's and the class's."""
        self._sampler = sampler
        self._encoder = encoder
        self._photos = encoder.embed(photos)
        self._prompts = prompts
        self._settings = replace(settings, steps=min(settings.steps, SELECTION_STEPS))

    @property
    def ceiling(self) -> float:
        """Similarity of the photos among themselves; 1 for a single photo."""
        return 1.0 if len(self._photos) < 2 else 1.0 - diversity(self._photos)

    def measure(self) -> Measurement:
        """Measures the model as it is now."""
        requests = [
            (prompt, picture_seed(SELECTION_SEED, prompt, index, 0))
            for prompt in self._prompts
            for index in range(BATCH_SIZE // 2)
        ]
        self._sampler.forget_prompts()
        pictures = self._draw(requests)
        self._sampler.forget_prompts()
        embeddings = self._encoder.embed([Image.fromarray(picture) for picture in pictures])
        subject, of_class = embeddings.chunk(2)
        return Measurement(
            subject=subject_fidelity(subject, self._photos),
            class_similarity=class_similarity(of_class, self._photos),
            class_diversity=diversity(of_class),
        )

    def _draw(self, requests: Sequence[tuple[str, int]]) -> list[NDArray[np.uint8]]:
        """Draws prompts from seeds, all together or, beside a large training, in halves."""
        prompts, seeds = zip(*requests, strict=True)
        try:
            return list(self._sampler.sample(prompts, seeds, self._settings))
        except torch.OutOfMemoryError:
            if len(requests) == 1:
                raise
        middle = len(requests) // 2
        return self._draw(requests[:middle]) + self._draw(requests[middle:])


def measurement_from(value: dict[str, Any]) -> Measurement:
    """The inverse of `Measurement.to_json`."""
    return Measurement(**value)


class Selection:
    """What has been measured so far; part of every checkpoint, so that nothing is drawn twice."""

    def __init__(self) -> None:
        self._judge: CheckpointJudge | None = None
        self._base: Measurement | None = None
        self._measured: dict[int, Measurement] = {}

    def start(self, judge: CheckpointJudge | None, known: dict[str, Any] | None) -> None:
        """Takes over what a checkpoint knows, or measures the base model; neither unjudged."""
        self._judge = judge
        if judge is None:
            return
        if known is None:
            with span(Activity.MEASURE):
                self._base = judge.measure()
            return
        self._base = measurement_from(known["base"])
        self._measured = {int(s): measurement_from(m) for s, m in known["measured"].items()}

    def consider(self, step: int, steps: int) -> bool:
        """Measures the model after `step` of `steps` steps; the first half is never the best.

        Returns:
            Whether it was measured.
        """
        if self._judge is None or 2 * step <= steps:
            return False
        with span(Activity.MEASURE):
            self._measured[step] = self._judge.measure()
        return True

    def best(self, last: int) -> int:
        """The step with the highest score, the later of equals; `last` if none was measured."""
        if self._judge is None or self._base is None or not self._measured:
            return last
        scores = {
            step: score(measured, self._base, self._judge.ceiling)
            for step, measured in self._measured.items()
        }
        return max(scores, key=lambda step: (scores[step], step))

    def to_json(self) -> dict[str, Any]:
        """JSON-able; the inverse of what `start` reads."""
        return {
            "base": self._base.to_json() if self._base else None,
            "measured": {str(step): m.to_json() for step, m in self._measured.items()},
        }
