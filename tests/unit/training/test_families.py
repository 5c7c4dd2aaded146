"""What a worker does with a plan, for the families beyond Stable Diffusion."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline

from dreambooth.sampling.settings import SamplingSettings
from dreambooth.training.worker import LoraSettings
from dreambooth.workspace.digest import tree_digest
from tests.tiny_families import make_tiny_sd3, make_tiny_xl
from tests.unit.training.conftest import make_plan, settings
from tests.unit.training.test_worker import summary, train


@pytest.mark.parametrize("make", [make_tiny_xl, make_tiny_sd3])
@pytest.mark.parametrize("lora", [None, LoraSettings(2, 2.0)])
def test_a_worker_trains_chooses_and_saves_a_model_of_each_family(
    tmp_path: Path,
    photos: list[Path],
    class_images: list[Path],
    make: Callable[[Path], Path],
    lora: LoraSettings | None,
) -> None:
    model = make(tmp_path / "base")
    plan = replace(
        make_plan(tmp_path, model, photos, class_images, lora=lora, encoder="efficientnet-lite0"),
        sampling=SamplingSettings("euler", 2, 3.0),
        settings=settings(text_encoder=lora is None, learning_rate=1e-3),
    )
    rows = train(plan)
    done = summary(plan)
    assert [row for row in rows if "error" in row] == []
    assert done["steps"] == plan.steps
    assert done["digest"] == tree_digest(Path(plan.output))
    assert done["selection"]["measured"]
    if lora is not None:
        pipeline = (
            DiffusionPipeline.from_pretrained(model, text_encoder_3=None, tokenizer_3=None)
            if make is make_tiny_sd3
            else DiffusionPipeline.from_pretrained(model)
        )
        pipeline.load_lora_weights(plan.output)
        assert pipeline.get_active_adapters() == ["default_0"]
