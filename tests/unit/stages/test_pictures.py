"""Which set a prompt's pictures belong to, and what they are called."""

import re

import pytest
from PIL import Image

from dreambooth.errors import UserError
from dreambooth.pipeline.progress import StageName
from dreambooth.sampling.settings import picture_seed
from dreambooth.stages import evaluate
from dreambooth.stages.class_images import class_pictures
from dreambooth.stages.generate import subject_sets
from dreambooth.stages.photos import PhotosStage, photo_files
from dreambooth.stages.pictures import slug
from dreambooth.training.selection import SELECTION_SEED
from tests.unit.stages.conftest import Stages
from tests.unit.stages.test_inputs import OUTPUTS


@pytest.mark.parametrize(
    "prompt",
    ["photo of a sks dog", "", "犬", "../../etc/passwd", "a" * 900, "CON", 'a/b:c*d?e"f<g>|'],
)
def test_every_prompt_has_a_folder_name_that_every_file_system_takes(prompt: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,54}[a-z0-9])?", slug(prompt))


def test_prompts_that_differ_in_signs_alone_have_folders_of_their_own() -> None:
    prompts = ["a dog", "a dog.", "a  dog", "A dog", "a-dog", "犬", "猫"]
    assert len({slug(prompt) for prompt in prompts}) == len(prompts)
    assert slug("photo of a sks dog").startswith("photo-of-a-sks-dog-")


def test_base_and_tuned_model_start_from_the_same_noise(stages: Stages) -> None:
    context = stages.context("rex", {}, OUTPUTS)
    tuned, base = evaluate._tuned_sets(context), evaluate._base_sets(context)
    for ours, theirs in zip([*tuned, *subject_sets(context)], base, strict=True):
        assert (ours.prompt, ours.seed, ours.settings) == (
            theirs.prompt,
            theirs.seed,
            theirs.settings,
        )
        assert ours.key != theirs.key and ours.folder != theirs.folder


def test_what_is_measured_was_neither_trained_on_nor_chosen_by(stages: Stages) -> None:
    """Quality is measured on noise that training and the choice of a checkpoint never saw."""
    context = stages.context("rex", {}, OUTPUTS)
    measured = {
        picture_seed(pictures.seed, pictures.prompt, index, 0)
        for pictures in evaluate._tuned_sets(context)
        for index in range(64)
    }
    trained = class_pictures(context)
    for seed, prompt in [
        (trained.seed, trained.prompt),
        (SELECTION_SEED, trained.prompt),
        (SELECTION_SEED, context.fill_in(context.job.training.prompt)),
        *((pictures.seed, pictures.prompt) for pictures in subject_sets(context)),
    ]:
        seen = {picture_seed(seed, prompt, i, attempt) for i in range(64) for attempt in range(6)}
        assert not measured & seen


@pytest.mark.parametrize(
    ("prompt", "without"),
    [
        ("photo of a sks dog", "photo of a dog"),
        ("sks dog, sks style", "dog, style"),
        ("a sks dog on asks street", "a dog on asks street"),
        ("portrait of (sks) dog", "portrait of ( ) dog"),
    ],
)
def test_an_encoder_that_never_saw_the_token_is_asked_without_it(
    stages: Stages, prompt: str, without: str
) -> None:
    assert evaluate._without_token(stages.context("rex", {}, OUTPUTS), prompt) == without


def test_photos_become_upright_rgb_whatever_they_were(stages: Stages) -> None:
    folder = stages.workspace / "photos"
    with Image.open(folder / "0.png") as image:
        turned = image.resize((96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(folder / "0.jpg", exif=exif)
    (folder / "0.png").unlink()
    context = stages.context("rex", stage=StageName.PHOTOS)
    outputs = PhotosStage().run(context).outputs
    context.outputs[StageName.PHOTOS] = outputs
    files = photo_files(context)
    assert [file.name for file in files] == ["00.png", "01.png", "02.png"]
    with Image.open(files[0]) as image:
        assert (image.mode, image.size) == ("RGB", (64, 96))
    assert PhotosStage().intact(context, outputs)


def test_photos_that_are_refused_leave_the_accepted_ones_of_before(stages: Stages) -> None:
    context = stages.context("rex", stage=StageName.PHOTOS)
    outputs = PhotosStage().run(context).outputs
    (stages.workspace / "photos" / "3.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"3\.png"):
        PhotosStage().run(context)
    assert PhotosStage().intact(context, outputs)
    assert not list(context.folder.root.glob(".tmp-*"))
