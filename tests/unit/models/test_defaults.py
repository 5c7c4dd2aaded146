"""What a manifest leaves out is filled in by the model's family, and nothing else is changed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dreambooth.api.job import Job
from dreambooth.api.manifest import parse_job
from dreambooth.errors import UserError
from dreambooth.models.defaults import (
    EMOJI,
    FAMILIES,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_3,
    STABLE_DIFFUSION_XL,
    resolve_settings,
)
from dreambooth.models.layouts import LAYOUTS
from dreambooth.models.schedulers import SCHEDULERS, make_scheduler


def a_job(model: dict[str, Any] | None = None, **spec: Any) -> Job:
    document = {
        "apiVersion": "dreambooth.dev/v1alpha1",
        "kind": "DreamBoothJob",
        "metadata": {"name": "rex"},
        "spec": {
            "subject": {"class": "dog", "photos": {"path": "rex"}},
            "model": model or {"builtin": "emoji"},
            **spec,
        },
    }
    return parse_job(document, "job.yaml", Path())


HUB = {"repo": "me/sd", "revision": "main"}


@pytest.mark.parametrize(
    ("model", "pipeline", "family", "encoder"),
    [
        ({"builtin": "emoji"}, None, EMOJI, "efficientnet-lite0"),
        ({"builtin": "emoji"}, "StableDiffusionPipeline", EMOJI, "efficientnet-lite0"),
        (HUB, None, STABLE_DIFFUSION, "dino-vits16"),
        (HUB, "StableDiffusionPipeline", STABLE_DIFFUSION, "dino-vits16"),
        ({"path": "sd"}, None, STABLE_DIFFUSION, "efficientnet-lite0"),
        (HUB, "StableDiffusionXLPipeline", STABLE_DIFFUSION_XL, "dino-vits16"),
        ({"path": "sd"}, "StableDiffusion3Pipeline", STABLE_DIFFUSION_3, "efficientnet-lite0"),
    ],
)
def test_a_job_that_says_nothing_gets_its_familys_settings(
    model: dict[str, Any], pipeline: str | None, family: Any, encoder: str
) -> None:
    job = resolve_settings(a_job(model), pipeline)
    rates = {"full": family.learning_rate, "lora": family.lora_learning_rate}
    assert job.training.method == family.method
    assert job.training.text_encoder == family.text_encoder
    assert job.training.steps == family.training_steps
    assert job.training.learning_rate == rates[family.method]
    assert job.training.batch_size == family.batch_size
    assert job.training.learning_rate_schedule == family.learning_rate_schedule
    assert job.class_images.count == family.class_images
    assert job.class_images.guidance == family.class_guidance
    assert job.generation.guidance == family.guidance
    assert job.generation.scheduler == job.class_images.scheduler == family.scheduler
    assert job.evaluation.encoder == encoder


def test_what_the_manifest_says_stays() -> None:
    job = resolve_settings(
        a_job(
            HUB,
            training={"steps": 7, "batchSize": 3, "learningRate": 1e-3, "checkpointEvery": 5,
                      "learningRateSchedule": "cosine"},
            classImages={"count": 6, "steps": 9, "guidance": 1.5, "scheduler": "ddim"},
            generation={"steps": 11, "guidance": 2.5, "scheduler": "euler"},
            evaluation={"encoder": "clip-vit-b32"},
        )
    )  # fmt: skip
    training = job.training
    assert (training.steps, training.batch_size, training.checkpoint_every) == (7, 3, 5)
    assert (training.learning_rate, training.learning_rate_schedule) == (1e-3, "cosine")
    classes = job.class_images
    assert (classes.count, classes.steps, classes.guidance, classes.scheduler) == (
        6,
        9,
        1.5,
        "ddim",
    )
    pictures = job.generation
    assert (pictures.steps, pictures.guidance, pictures.scheduler) == (11, 2.5, "euler")
    assert job.evaluation.encoder == "clip-vit-b32"


def test_each_family_that_can_be_tuned_has_defaults() -> None:
    assert FAMILIES.keys() == LAYOUTS.keys()


def test_what_is_asked_for_goes_before_what_the_family_prefers() -> None:
    asked = a_job(HUB, training={"method": "full", "textEncoder": True})
    training = resolve_settings(asked, "StableDiffusionXLPipeline").training
    assert (training.method, training.text_encoder) == ("full", True)
    assert training.learning_rate == STABLE_DIFFUSION_XL.learning_rate


@pytest.mark.parametrize("part", ["classImages", "generation"])
def test_a_sampler_that_a_flow_matching_model_cannot_use_is_refused_with_its_field(
    part: str,
) -> None:
    job = a_job(HUB, **{part: {"scheduler": "dpmsolver++"}})
    with pytest.raises(UserError) as caught:
        resolve_settings(job, "StableDiffusion3Pipeline")
    assert caught.value.field == f"spec.{part}.scheduler"
    assert "dpmsolver++" in caught.value.message
    assert "euler" in str(caught.value.remedy)
    euler = a_job(HUB, **{part: {"scheduler": "euler"}})
    assert resolve_settings(euler, "StableDiffusion3Pipeline").generation.steps == 28


def test_lora_has_a_learning_rate_of_its_own() -> None:
    assert resolve_settings(a_job(HUB, training={"method": "lora"})).training.learning_rate == 1e-4


@pytest.mark.parametrize(("workers", "batch"), [(1, 2), (2, 2), (3, 3), (8, 8)])
def test_the_workers_can_share_a_batch_evenly(workers: int, batch: int) -> None:
    job = resolve_settings(a_job(HUB, cluster={"workers": workers}))
    assert job.training.batch_size == batch


@pytest.mark.parametrize(("steps", "every"), [(400, 100), (10, 3), (3, 1), (1, 1)])
def test_checkpoints_cut_the_training_into_four(steps: int, every: int) -> None:
    assert (
        resolve_settings(a_job(HUB, training={"steps": steps})).training.checkpoint_every == every
    )


@pytest.mark.parametrize("name", [None, "euler"])
def test_a_flow_matching_model_has_the_one_sampler_of_its_own(name: str | None) -> None:
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    scheduler = make_scheduler(name, config)
    scheduler.set_timesteps(4)
    sample = torch.ones(2, 3)
    assert scheduler.init_noise_sigma == 1.0
    assert scheduler.config.shift == 3.0
    assert torch.equal(scheduler.scale_model_input(sample, scheduler.timesteps[0]), sample)
    for timestep in scheduler.timesteps:
        sample = scheduler.step(torch.ones(2, 3), timestep, sample, return_dict=False)[0]
    # From one at all noise, along a slope of one, to no noise.
    torch.testing.assert_close(sample, torch.zeros(2, 3))


@pytest.mark.parametrize("name", sorted(SCHEDULERS.keys() - {"euler"}))
def test_samplers_of_diffusion_are_not_made_for_a_flow_matching_model(name: str) -> None:
    with pytest.raises(UserError, match="flow-matching"):
        make_scheduler(name, {"_class_name": "FlowMatchEulerDiscreteScheduler"})


def test_filling_in_twice_changes_nothing() -> None:
    once = resolve_settings(a_job())
    assert resolve_settings(once) == once


@pytest.mark.parametrize("name", [None, *SCHEDULERS])
def test_each_sampler_keeps_the_models_noise_schedule(name: str | None) -> None:
    config = {
        "_class_name": "PNDMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": "v_prediction",
        "steps_offset": 1,
    }
    scheduler = make_scheduler(name, config)
    wanted = "PNDMScheduler" if name is None else SCHEDULERS[name][0]
    assert type(scheduler).__name__ == wanted
    assert scheduler.config.beta_end == 0.012
    assert scheduler.config.prediction_type == "v_prediction"
    scheduler.set_timesteps(5)
    assert len(scheduler.timesteps) >= 5
