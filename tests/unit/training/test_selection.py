"""Which checkpoint is kept."""

import json
from dataclasses import replace

import pytest

from dreambooth.training.selection import (
    DIVERSITY_KEPT,
    DRIFT_ALLOWED,
    Measurement,
    measurement_from,
    score,
)

BASE = Measurement(subject=0.4, class_similarity=0.4, class_diversity=0.5)
CEILING = 0.9


def test_the_score_is_the_share_of_the_gap_that_is_closed() -> None:
    assert score(BASE, BASE, CEILING) == 0.0
    assert score(replace(BASE, subject=0.65), BASE, CEILING) == pytest.approx(0.5)
    assert score(replace(BASE, subject=0.9), BASE, CEILING) == pytest.approx(1.0)


def test_a_little_drift_is_free_and_more_costs_more_than_it_can_bring() -> None:
    gap = CEILING - BASE.subject
    allowed = BASE.class_similarity + 0.99 * DRIFT_ALLOWED * gap
    close = replace(BASE, subject=0.8, class_similarity=allowed)
    assert score(close, BASE, CEILING) == score(replace(BASE, subject=0.8), BASE, CEILING)
    drifted = replace(BASE, subject=0.9, class_similarity=0.8)
    assert score(drifted, BASE, CEILING) < score(replace(BASE, subject=0.6), BASE, CEILING)


def test_lost_diversity_of_the_class_is_marked_down() -> None:
    kept = replace(BASE, subject=0.8, class_diversity=DIVERSITY_KEPT * BASE.class_diversity + 1e-9)
    lost = replace(kept, class_diversity=0.25)
    assert score(kept, BASE, CEILING) == score(replace(BASE, subject=0.8), BASE, CEILING)
    assert score(lost, BASE, CEILING) < score(kept, BASE, CEILING) - 0.5


def test_a_base_model_that_is_as_good_as_the_photos_does_not_divide_by_zero() -> None:
    perfect = replace(BASE, subject=CEILING)
    assert score(perfect, perfect, CEILING) == 0.0


def test_a_measurement_survives_json() -> None:
    assert measurement_from(json.loads(json.dumps(BASE.to_json()))) == BASE
