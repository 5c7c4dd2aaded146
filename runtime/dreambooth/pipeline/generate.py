"""More pictures from a job that is done: `dreambooth generate`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dreambooth.api.manifest import parse_job
from dreambooth.errors import UserError
from dreambooth.models.defaults import resolve_settings
from dreambooth.models.resolve import resolve
from dreambooth.pipeline.ray_session import ray_session
from dreambooth.sampling.drawing import ModelSource
from dreambooth.sampling.factory import fill
from dreambooth.sampling.picture_set import PictureSet
from dreambooth.sampling.settings import SamplingSettings
from dreambooth.stages.pictures import slug
from dreambooth.workspace.atomic import disk_errors, read_json
from dreambooth.workspace.layout import Workspace


def generate_more(
    workspace: Path,
    job_id: str,
    prompts: Sequence[str],
    count: int,
    seed: int,
    out: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Makes `count` pictures for each of `prompts` with the tuned model of a finished job.

    Args:
        workspace: Root of the workspace.
        job_id: The job's folder name.
        prompts: May hold `{token}` and `{class}`.
        count: Pictures a prompt.
        seed: Decides about the noise; the same seed and prompt give the same pictures.
        out: Folder for the pictures; made when missing.
        on_progress: Called with (done, total).

    Returns:
        The files, prompt by prompt.

    Raises:
        UserError: If there is no such job or it has no model yet.
    """
    space = Workspace(workspace.absolute())
    folder = space.job(job_id)
    result = read_json(folder.result)
    if result is None or not folder.model.is_dir():
        raise UserError(
            f"job {job_id!r} has no finished model on the workspace {space.root}",
            field=str(folder.root),
            remedy="Run the job to its end first; `dreambooth status` shows how far it is.",
            reason="JobNotFinished",
        )
    job = resolve_settings(
        parse_job(result["manifest"], str(folder.result), folder.root),
        result["resolved"].get("pipeline"),
    )
    token = result["resolved"]["token"]
    filled = [
        prompt.replace("{token}", token).replace("{class}", job.subject.class_noun)
        for prompt in prompts
    ]
    wanted = job.generation
    settings = SamplingSettings(
        wanted.scheduler, wanted.steps or 1, wanted.guidance or 1.0, wanted.negative_prompt
    )
    # A model that was tuned with a checker has it in its folder.
    known = result["resolved"].get("safetyChecker", "none")
    model, lora, checker = folder.model, None, None if known == "none" else known
    if job.training.method == "lora":
        base = resolve(job.model, workspace=space.root, manifest_dir=folder.root)
        model, lora, checker = base.folder, str(folder.model), base.checker
    source = ModelSource(str(model), lora, str(model) if checker else None)
    key = {"model": result["outputs"]["modelDigest"]}
    if checker:
        key["checker"] = checker
    sets = [_set(out, prompt, count, seed, settings, key, job.name) for prompt in filled]
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with ray_session():
        states = fill(sets, source, on_progress)
    return [file for state in states for file in state.files]


def _set(
    out: Path,
    prompt: str,
    count: int,
    seed: int,
    settings: SamplingSettings,
    made_with: dict[str, str],
    job: str,
) -> PictureSet:
    key: dict[str, Any] = {
        **made_with,
        "prompt": prompt,
        "seed": seed,
        "sampler": settings.to_json(),
    }
    return PictureSet(
        out.absolute() / f"{slug(prompt)}-seed-{seed}",
        key,
        prompt,
        seed,
        count,
        settings,
        gated=False,
        prompt_field="--prompt",
        provenance={"model": made_with["model"], "job": job},
    )
