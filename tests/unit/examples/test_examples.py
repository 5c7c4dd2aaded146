"""The examples a user copies: run in reduced form, and what they leave, loaded without our code."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from dreambooth.api.job import Job
from dreambooth.api.manifest import load_job
from dreambooth.models.resolve import BUILTIN
from dreambooth.pipeline.driver import run_job
from dreambooth.sampling.files import read_metadata
from dreambooth.workspace.layout import Workspace
from tests.without_ray import Work, without_ray

EXAMPLES = Path(__file__).parents[3] / "examples"
LOCAL = sorted(
    file
    for file in EXAMPLES.glob("*.yaml")
    if "path" in yaml.safe_load(file.read_text())["spec"]["subject"]["photos"]
)

# Draws the pictures it is told with nothing but diffusers; our package cannot be imported.
PLAIN = """
import json, sys
sys.modules["dreambooth"] = None
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
told = json.loads(sys.argv[1])
for each in told:
    if each["lora"]:
        # The base model's files are in half precision.
        pipeline = StableDiffusionPipeline.from_pretrained(
            each["model"], torch_dtype=torch.float32
        )
        pipeline.load_lora_weights(each["lora"])
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(each["model"])
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, algorithm_type="dpmsolver++", solver_order=2
    )
    size = pipeline.unet.config.sample_size
    generator = torch.Generator().manual_seed(int(each["seed"]))
    image = pipeline(
        each["prompt"],
        num_inference_steps=int(each["steps"]),
        guidance_scale=float(each["guidance"]),
        latents=torch.randn(1, 4, size, size, generator=generator),
    ).images[0]
    image.save(each["out"])
assert not [name for name in sys.modules if name.startswith("dreambooth.")]
"""


class Reduced:
    """An example with few steps and pictures."""

    def __init__(self, name: str, workspace: Path) -> None:
        whole = load_job(EXAMPLES / f"{name}.yaml")
        self.job: Job = replace(
            whole,
            class_images=replace(whole.class_images, count=2, steps=3),
            training=replace(whole.training, steps=6, batch_size=2, keep="last"),
            generation=replace(
                whole.generation, prompts=whole.generation.prompts[:1], images_per_prompt=1, steps=3
            ),
            evaluation=replace(whole.evaluation, images_per_prompt=2),
        )
        self.workspace = workspace
        self.work = Work()
        with without_ray() as self.work:
            self.result: dict[str, Any] = run_job(self.job, workspace, [])
        self.folder = Workspace(workspace).job(self.job.id)

    @property
    def picture(self) -> Path:
        """What the tuned model drew."""
        [each] = self.result["images"]
        return self.folder.root / str(each["files"][0])

    @property
    def base_picture(self) -> Path:
        """What the base model drew from the same noise."""
        [each] = self.result["baseImages"]
        return self.workspace / str(each["files"][0])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples") / "workspace"


@pytest.fixture(scope="module")
def robot(workspace: Path) -> Reduced:
    return Reduced("robot", workspace)


@pytest.fixture(scope="module")
def robot_lora(robot: Reduced) -> Reduced:
    return Reduced("robot-lora", robot.workspace)


@pytest.mark.parametrize("file", LOCAL, ids=lambda file: file.stem)
def test_an_example_that_names_photos_has_them_beside_it(file: Path) -> None:
    job = load_job(file)
    assert job.subject.photos.path is not None
    assert len(list((file.parent / job.subject.photos.path).glob("*.png"))) >= 3


def test_the_robot_ends_with_model_pictures_contact_sheet_and_report(robot: Reduced) -> None:
    photos = EXAMPLES / "subjects" / "robot" / "photos"
    assert len(robot.result["photos"]["accepted"]) == len(list(photos.iterdir()))
    assert (robot.folder.model / "model_index.json").is_file()
    assert robot.folder.contact_sheet.is_file() and robot.folder.report.is_file()
    with Image.open(robot.picture) as image:
        assert image.size == (128, 128)
    told = read_metadata(robot.picture)
    assert told["job"] == "robot" and told["baseModel"] == "emoji"
    assert told["prompt"] == f"photo of a {robot.result['resolved']['token']} robot"
    assert len(robot.result["training"]["losses"]) == 6


def test_the_lora_example_shares_the_class_images_of_the_robot(robot_lora: Reduced) -> None:
    assert robot_lora.result["classImages"]["made"] == 0
    [weights] = robot_lora.folder.model.iterdir()
    assert weights.stat().st_size < 2**20


def pixels(file: Path) -> NDArray[np.float32]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32)


def test_plain_diffusers_loads_what_is_left_and_draws_the_very_pictures(
    robot: Reduced, robot_lora: Reduced, tmp_path: Path
) -> None:
    wanted: list[dict[str, str | None]] = []
    for run in (robot, robot_lora):
        with_lora = run is robot_lora
        wanted.append(
            {
                **read_metadata(run.picture),
                "model": str(BUILTIN / "emoji" if with_lora else run.folder.model),
                "lora": str(run.folder.model) if with_lora else None,
                "out": str(tmp_path / f"{run.job.name}.png"),
            }
        )
    command = [sys.executable, "-c", PLAIN, json.dumps(wanted)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    for run in (robot, robot_lora):
        ours, base = pixels(run.picture), pixels(run.base_picture)
        plain = pixels(tmp_path / f"{run.job.name}.png")
        learned = np.abs(ours - base).mean()
        assert learned > 4
        # Ours may be drawn in half precision: a grey level or two of 255.
        assert np.abs(plain - ours).mean() < 2, run.job.name
