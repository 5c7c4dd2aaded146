"""Bad inputs to `dreambooth run`: one clear message, the right exit code, nothing half written."""

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image

from tests.fake_hub import FakeHub
from tests.serving import QuietHandler
from tests.unit.bad_inputs import (
    Case,
    Setup,
    Spoil,
    hub_repo,
    model_file,
    photo,
    pickles_only,
    put,
    text,
    unreadable,
    uri,
)
from tests.unit.photos.pictures import a_landscape, a_photo, picture_bytes
from tests.unit.photos.test_archive import PHOTOS, tarred
from tests.unit.photos.test_refused import announces
from tests.without_ray import without_ray

FIELD, MODEL = "spec.subject.photos", "spec.model"
PNG = picture_bytes()
GREY = picture_bytes(Image.new("RGB", (200, 200), "grey"))


def many(job: Setup) -> None:
    for number in range(101):
        job.only_photo(f"{number}.png", PNG)


def no_photos(job: Setup) -> None:
    for file in job.photos.iterdir():
        file.unlink()


def link_out(job: Setup) -> None:
    (job.photos / "etc.png").symlink_to("/etc/hostname")


def full_after(kibibytes: int) -> Spoil:
    def spoil(job: Setup) -> None:
        for number in range(3):
            image = a_landscape(number, (600, 600))
            job.only_photo(f"large-{number}.jpg", picture_bytes(image, "JPEG", quality=80))
        job.mount(f"size={kibibytes}k")

    return spoil


def full_for_the_model(job: Setup) -> None:
    job.hub_model().files["unet/diffusion_pytorch_model.safetensors"] += bytes(4 * 2**20)
    job.mount("size=2m")


def hub_is_down(job: Setup) -> None:
    job.hub_model()

    def fail(handler: QuietHandler) -> bool:
        handler.reply(503)
        return True

    job.hub.faults.append(fail)


def folder_instead(job: Setup) -> None:
    job.file.unlink()
    job.file.mkdir()


MANIFESTS = [
    Case("the manifest is not there", lambda job: job.file.unlink(),
         "job.yaml", "no such file", "Check the path"),
    Case("the manifest is a folder", folder_instead,
         "job.yaml", "is a folder", "Give the manifest file"),
    Case("the manifest is empty", text(""), "job.yaml", "is empty", "examples/"),
    Case("the manifest is no YAML", text("spec: [1, 2"), "job.yaml", "line 1", "Mend the YAML"),
    Case("the manifest is a picture", text(PNG), "job.yaml", "no UTF-8 text", "a YAML file"),
    Case("the manifest has a tab", text("kind: x\n\tspec: 1"), "job.yaml", "line 2", "Mend"),
    Case("two jobs in one file", text("kind: a\n---\nkind: b\n"),
         "job.yaml", "holds 2 documents", "one DreamBoothJob a file"),
    Case("a field is given twice", text("kind: DreamBoothJob\nkind: DreamBoothJob\n"),
         "job.yaml", 'the field "kind" is given twice, line 2', "Mend the YAML"),
    Case("a manifest of something else", put("kind", "Deployment"),
         "kind", "has kind Deployment", "kind: DreamBoothJob"),
    Case("a manifest of another version", put("apiVersion", "dreambooth.dev/v2"),
         "apiVersion", "dreambooth.dev/v2", "apiVersion: dreambooth.dev/v1alpha1"),
    Case("a name that Kubernetes does not take", put("metadata.name", "My Dog"),
         "metadata.name", "Name the job with at most 34 lower-case letters", "a letter first"),
    Case("no class noun", put("spec.subject.class", None),
         "spec.subject.class", "is missing", "class noun"),
    Case("a misspelt field", put("spec.trainnig", {"steps": 100}),
         "spec.trainnig", "no such field", "Did you mean training?"),
    Case("a field at the wrong place", put("spec.steps", 100),
         "spec.steps", "no such field", "Known here: "),
    Case("a number of steps that is none", put("spec.training.steps", "many"),
         "spec.training.steps", 'found "many"', "a whole number"),
    Case("no steps at all", put("spec.training.steps", 0),
         "spec.training.steps", "found 0", "from 1"),
    Case("a learning rate below zero", put("spec.training.learningRate", -1e-6),
         "spec.training.learningRate", "found -1e-06", "greater than 0"),
    Case("a method that does not exist", put("spec.training.method", "lorra"),
         "spec.training.method", '"lorra"', "Did you mean lora?"),
    Case("LoRA settings without LoRA", put("spec.training.lora", {"rank": 4}),
         "spec.training.lora", "lora needs method: lora", "or remove the lora settings"),
    Case("a prompt without the subject", put("spec.generation.prompts", ["a photo of my dog"]),
         "spec.generation.prompts[0]", "{token}", "{class}"),
    Case("a placeholder that does not exist",
         put("spec.generation.prompts", ["a {token} {class} in {place}"]),
         "spec.generation.prompts[0]", "{token}", "{class}"),
    Case("photos from two places", put("spec.subject.photos.uri", "https://example.org/a.zip"),
         FIELD, "exactly one photo source", "path, hub, uri, configMap or secret"),
    Case("photos from nowhere", put("spec.subject.photos", {}),
         FIELD, "exactly one photo source", "path, hub, uri, configMap or secret"),
    Case("a photo path out of the workspace", put("spec.subject.photos.path", "../rex"),
         f"{FIELD}.path", "relative to the workspace", 'without ".."'),
    Case("a password in an address",
         put("spec.subject.photos", {"uri": "https://me:hunter2@example.org/a.zip"}),
         f"{FIELD}.uri", "Leave user name and password out", "secretRef"),
    Case("a hub model without a revision", put("spec.model", {"repo": "me/tiny"}),
         f"{MODEL}.revision", "Say at which revision", "commit"),
    Case("a built-in model that does not exist", put("spec.model", {"builtin": "emojis"}),
         f"{MODEL}.builtin", '"emojis"', "emoji"),
    Case("a token that is the class noun", put("spec.subject.token", "dog"),
         "spec.subject", "token", "class"),
    Case("a token of two words", put("spec.subject.token", "my dog"),
         "spec.subject.token", '"my dog"', "match"),
]  # fmt: skip

FILES = [
    Case("a photo folder that is not there", put("spec.subject.photos.path", "rexx"),
         f"{FIELD}.path", "there is no folder rexx", "correct the path"),
    Case("a photo folder that is a photo", put("spec.subject.photos.path", "rex/photo-0.png"),
         f"{FIELD}.path", "is a file", "Give the folder"),
    Case("a folder without photos", no_photos,
         f"{FIELD}.path", "no photos in rex", "3 to 10 photos"),
    Case("more photos than can be used", many,
         f"{FIELD}.path", "104 files in rex", "Choose the best 3 to 10"),
    Case("a photo that was not copied to its end", photo("half.png", PNG[: len(PNG) // 2]),
         FIELD, "half.png is damaged or not complete", "Copy the photo again"),
    Case("an empty photo", photo("empty.jpg", b""),
         FIELD, "empty.jpg is empty", "Copy the photo again"),
    Case("a text that is named like a photo", photo("text.jpg", b"Hello"),
         FIELD, "text.jpg is no picture", "Replace it"),
    Case("a photo as iPhones store it", photo("IMG_1.HEIC", b"\0\0\0\x18ftypheic" + bytes(50)),
         FIELD, "IMG_1.HEIC is in a format that cannot be read here (HEIC)", "JPEG or PNG"),
    Case("a photo that unpacks to gigabytes", photo("bomb.png", announces(40_000, 40_000)),
         FIELD, "bomb.png unpacks to", "Save it smaller"),
    Case("a photo as small as an icon", photo("i.png", picture_bytes(a_photo(1, (32, 32)))),
         FIELD, "i.png is too small, 32 × 32 pixels", "at least 64 pixels"),
    Case("a photo of nothing", photo("grey.png", GREY),
         FIELD, "grey.png shows one even colour", "take it out"),
    Case("a link out of the photo folder", link_out,
         f"{FIELD}.path", "rex/etc.png is a link that leads out", "Copy the photos"),
    Case("a photo that this user may not read", unreadable,
         FIELD, "photo-1.png cannot be read: permission denied", "permission to read it"),
    Case("a pipe among the photos", lambda job: os.mkfifo(job.photos / "p.png"),
         f"{FIELD}.path", "rex/p.png is no plain file", "nothing but photos"),
    Case("a file address of nothing", put("spec.subject.photos", {"uri": "file:///no/dog.zip"}),
         f"{FIELD}.uri", "there is no file or folder /no/dog.zip", "Correct the path"),
    Case("a web address of nothing", uri("/dog.zip"),
         f"{FIELD}.uri", "there is nothing at http://", "Correct the address"),
    Case("a web page instead of a photo", uri("/dog", 200, b"<html>", "text/html"),
         f"{FIELD}.uri", "is a web page", "direct link"),
    Case("an archive that was not copied to its end",
         uri("/dog.tgz", 200, tarred(PHOTOS)[:3000], "application/gzip"),
         f"{FIELD}.uri", "dog.tgz is damaged, or not complete", "Make the archive anew"),
    Case("an archive that leads out of itself",
         uri("/dog.tgz", 200, tarred([("../../dog.png", PNG)]), "application/gzip"),
         f"{FIELD}.uri", "has an entry that leads out of it", "nothing but the photos"),
    Case("a ConfigMap without a cluster",
         put("spec.subject.photos", {"configMap": {"name": "rex"}}),
         f"{FIELD}.configMap", "only a cluster has", "photos.path"),
    Case("a data set that is not on the hub",
         put("spec.subject.photos", {"hub": {"repo": "me/dogs", "revision": "main"}}),
         f"{FIELD}.hub.repo", "there is no data set me/dogs", "Check the name"),
]  # fmt: skip

TOKENS = [
    Case("a token that splits", put("spec.subject.token", "rexington"),
         "spec.subject.token", "splits the token 'rexington' into", "use one of: sks"),
    Case("a token that is a common word", put("spec.subject.token", "cat"),
         "spec.subject.token", "is a common word", "Leave it out"),
    Case("a token that is one of the class noun's words",
         put("spec.subject", {"class": "sks dog", "token": "sks", "photos": {"path": "rex"}}),
         "spec.subject.token", "'sks' is the class noun", "Leave it out"),
    Case("a token that is a control sign", put("spec.subject.token", "<|endoftext|>"),
         "spec.subject.token", "control sign", "Leave it out"),
]  # fmt: skip

MODELS = [
    Case("a model folder that is not there", put("spec.model", {"path": "models/sd"}),
         f"{MODEL}.path", "there is no folder models/sd", "correct the path"),
    Case("a model that is a file", put("spec.model", {"path": "job.yaml"}),
         f"{MODEL}.path", "job.yaml is a file", "model_index.json"),
    Case("a folder that is no model", put("spec.model", {"path": "rex"}),
         f"{MODEL}.path", "rex has no model_index.json", "save_pretrained"),
    Case("a model as a pickle", pickles_only,
         f"{MODEL}.path", "as a pickle only", "safe_serialization=True"),
    Case("weights that were not copied to their end",
         model_file("unet/diffusion_pytorch_model.safetensors", lambda whole: whole[:-1]),
         f"{MODEL}.path", "unet/diffusion_pytorch_model.safetensors is damaged", "Copy the model"),
    Case("weights that are a pointer of Git LFS",
         model_file("vae/diffusion_pytorch_model.safetensors",
                    lambda _: b"version https://git-lfs.github.com/spec/v1\n"),
         f"{MODEL}.path", "is only a pointer of Git LFS", "git lfs pull"),
    Case("a model without its text encoder's weights",
         model_file("text_encoder/model.safetensors", lambda _: None),
         f"{MODEL}.path", "text_encoder/model.safetensors is missing", "complete folder"),
    Case("a model without a tokenizer", model_file("tokenizer/tokenizer.json", lambda _: None),
         f"{MODEL}.path", "tokenizer/vocab.json, tokenizer/merges.txt is missing", "complete"),
    Case("a tokenizer that is damaged", model_file("tokenizer/tokenizer.json", lambda w: w[:99]),
         f"{MODEL}.path", "tokenizer/tokenizer.json is no valid JSON", "Copy the model again"),
    Case("a model of another kind",
         model_file("model_index.json", lambda w: w.replace(b"StableDiffusionPipeline",
                                                            b"FluxPipeline")),
         f"{MODEL}.path", "is a FluxPipeline", "Use a Stable Diffusion 1.x"),
    Case("a model for inpainting",
         model_file("unet/config.json",
                    lambda w: w.replace(b'"in_channels": 4', b'"in_channels": 9')),
         f"{MODEL}.path", "a unet for 9 channels where its vae makes 4", "Use a Stable Diffusion"),
    Case("a model that is not on the hub",
         put("spec.model", {"repo": "me/gone", "revision": "main"}),
         f"{MODEL}.repo", "there is no model me/gone", "Check the name"),
    Case("a revision that the hub does not have", hub_repo(commit="d" * 40),
         f"{MODEL}.revision", "has no revision cccc", "commits/main"),
    Case("a gated model without a token", hub_repo(access="gated"),
         f"{MODEL}.repo", "is gated", "Accept its terms"),
    Case("a model on the hub as a pickle", hub_repo(files={"model.ckpt": b"x"}),
         MODEL, "as a pickle only", "safetensors"),
    Case("a hub that does not answer", hub_is_down,
         f"{MODEL}.repo", "the hub does not give the model me/tiny", "run again", code=3),
]  # fmt: skip

WORKSPACES = [
    Case("a workspace that may not be written", Setup.forbid_writing,
         "ws/jobs/rex", "cannot write", "Give a workspace that", code=3),
    Case("a workspace below a file", lambda job: setattr(job, "workspace", job.file / "ws"),
         "job.yaml/ws/jobs/rex", "cannot write: a part of the path is no folder",
         "Give another workspace", code=3),
    Case("a job that another process runs", Setup.run_it_elsewhere,
         "ws/jobs/rex", "job rex is being run by another process (process ", "Wait for it to end"),
    Case("a disk that is full from the start", full_after(4),
         "ws/", "no space left", "Free some space", code=3),
    Case("a disk that is full before the photos are copied", full_after(150),
         "ws/jobs/rex/", "no space left", "Free some space", code=3),
    Case("a disk that is full before the photos are prepared", full_after(1000),
         "ws/jobs/rex/", "no space left", "Free some space", code=3),
    Case("a disk that is too small for the model", full_for_the_model,
         "ws/", "no space left", "Free some space", code=3),
]  # fmt: skip

CASES = [*MANIFESTS, *FILES, *TOKENS, *MODELS, *WORKSPACES]


@pytest.fixture
def job(
    tmp_path: Path, tiny_model: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Setup]:
    monkeypatch.delenv("DREAMBOOTH_MOUNTS", raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    with ExitStack() as clean_up:
        # What is wrong is found before Ray is needed, and it need not start to be stopped again.
        clean_up.enter_context(without_ray())
        yield Setup(tmp_path, tiny_model, hub, clean_up)
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_bad_input_is_told_with_its_place_and_remedy_and_loses_nothing(
    job: Setup, case: Case
) -> None:
    case.spoil(job)
    brought = job.inputs()
    result = job.run()
    told = result.stderr
    assert result.exit_code == case.code, result.output
    assert told.count("Error: ") == 1
    assert "Traceback" not in result.output
    where, _, message = told.partition("Error: ")[2].partition(": ")
    assert case.field in where
    assert case.says in message
    assert case.remedy in message
    assert "hunter2" not in result.output
    # The same again, for programs: nothing of the first run is in the way.
    event = json.loads(job.run("--json").stdout.splitlines()[-1])
    assert event["kind"] == "jobFailed"
    assert f"Error: {event['message']}\n" == told[told.index("Error: ") :]
    assert event["data"]["exitCode"] == case.code
    assert case.remedy in f"{event['message']} {event['data']['remedy']}"
    assert event["data"]["reason"] not in ("", "Unexpected")
    assert job.half_written() == []
    assert job.inputs() == brought


@pytest.mark.parametrize("case", MANIFESTS, ids=lambda case: case.title)
def test_a_bad_manifest_is_refused_before_anything_is_written(job: Setup, case: Case) -> None:
    case.spoil(job)
    assert job.run().exit_code == 2
    assert not job.workspace.exists()


def test_a_file_that_the_user_may_not_make_so_large_is_told(job: Setup) -> None:
    job.only_photo("large.bmp", picture_bytes(a_photo(5, (600, 600)), "BMP"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, before[1]))
    try:
        result = job.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 3
    assert "ws/jobs/rex/" in result.stderr
    assert "cannot write: the file would be larger than allowed" in result.stderr
    assert "Raise the limit" in result.stderr
    assert job.half_written() == []


def test_there_are_enough_cases_and_each_has_a_title_of_its_own() -> None:
    assert len({case.title for case in CASES}) == len(CASES) >= 25
