"""What a manifest leaves out is filled in by the model's family, and nothing else is changed."""

from pathlib import Path
from typing import Any

import pytest

from dreambooth.api.job import Job
from dreambooth.api.manifest import parse_job
from dreambooth.models.defaults import EMOJI, STABLE_DIFFUSION, resolve_settings
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
    ("model", "family", "encoder"),
    [
        ({"builtin": "emoji"}, EMOJI, "efficientnet-lite0"),
        (HUB, STABLE_DIFFUSION, "dino-vits16"),
        ({"path": "sd"}, STABLE_DIFFUSION, "efficientnet-lite0"),
    ],
)
def test_a_job_that_says_nothing_gets_its_familys_settings(
    model: dict[str, Any], family: Any, encoder: str
) -> None:
    job = resolve_settings(a_job(model))
    assert job.training.steps == family.training_steps
    assert job.training.learning_rate == family.learning_rate
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
