"""From manifests to jobs, and what people are told about bad ones."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dreambooth.api.crd import job_schema, with_defaults
from dreambooth.api.job import Job, Photos
from dreambooth.api.manifest import load_job, parse_job
from dreambooth.errors import UserError
from tests.unit.api.rule_cases import a_manifest

ROOT = Path(__file__).resolve().parents[3]
GOOD = sorted([*(ROOT / "examples").glob("*.yaml"), ROOT / "tools/generate/example.yaml"])
BAD = sorted((ROOT / "tests/contract/bad").glob("*.yaml"))


def a_job(**changes: Any) -> Job:
    return parse_job(a_manifest(**changes), "job.yaml", Path())


def refusal(document: dict[str, Any]) -> UserError:
    with pytest.raises(UserError) as caught:
        parse_job(document, "job.yaml", Path())
    assert caught.value.reason == "InvalidManifest"
    return caught.value


def refused(**changes: Any) -> str:
    return str(refusal(a_manifest(**changes)))


# What a good manifest becomes.


def test_the_smallest_job_gets_the_defaults_that_depend_on_no_model() -> None:
    job = a_job()
    assert (job.name, job.namespace, job.uid, job.id) == ("rex", "default", None, "rex")
    assert job.subject.token is None
    assert job.subject.photos == Photos(path="photos/rex")
    assert job.model.builtin == "emoji"
    assert job.class_images.prompt == "photo of a {class}"
    assert (job.training.method, job.training.keep) == (None, "best")
    assert job.training.prompt == "photo of a {token} {class}"
    assert (job.training.batch_size, job.training.seed) == (None, 0)
    assert (job.training.prior_weight, job.training.gradient_clip) == (1.0, 1.0)
    assert job.training.text_encoder is None
    assert job.generation.prompts == ("photo of a {token} {class}",)
    assert job.generation.images_per_prompt == 4
    assert (job.evaluation.encoder, job.evaluation.prompts) == ("auto", ())
    assert (job.cluster.pool, job.cluster.workers) == (None, 1)


def test_the_smallest_job_leaves_the_model_family_its_choices() -> None:
    job = a_job()
    for part in (job.class_images, job.generation):
        assert (part.steps, part.guidance, part.scheduler, part.negative_prompt) == (None,) * 4
    assert job.class_images.count is None
    training = job.training
    assert (training.steps, training.learning_rate, training.checkpoint_every) == (None,) * 3


def test_every_field_of_the_manifest_reaches_the_job() -> None:
    job = a_job(
        **{
            "metadata.namespace": "team",
            "metadata.uid": "1f2e",
            "spec.subject": {
                "class": "toy robot",
                "token": "sks",
                "photos": {"hub": {"repo": "a/b", "revision": "c0ffee", "path": "robot"}},
            },
            "spec.model": {"repo": "c/d", "revision": "v1", "safetyChecker": "disabled"},
            "spec.classImages": {
                "count": 3,
                "prompt": "a {class}",
                "negativePrompt": "blurry",
                "steps": 4,
                "guidance": 5,
                "scheduler": "ddim",
                "seed": 6,
            },
            "spec.training": {
                "method": "lora",
                "prompt": "my {token} {class}",
                "steps": 10,
                "batchSize": 4,
                "learningRate": 1,
                "priorWeight": 0,
                "textEncoder": False,
                "gradientClip": 2,
                "seed": 7,
                "lora": {"rank": 4, "alpha": 2},
                "checkpointEvery": 5,
                "keep": "last",
            },
            "spec.generation": {
                "prompts": ["{token} {class}", "a {token} {class}"],
                "imagesPerPrompt": 8,
                "negativePrompt": "text",
                "steps": 9,
                "guidance": 1.5,
                "scheduler": "unipc",
                "seed": 10,
            },
            "spec.evaluation": {
                "encoder": "dino-vits16",
                "prompts": ["the {token} {class}"],
                "imagesPerPrompt": 11,
            },
            "spec.cluster": {"pool": "a100", "workers": 2},
        }
    )
    assert (job.id, job.namespace) == ("rex-1f2e", "team")
    assert (job.subject.class_noun, job.subject.token) == ("toy robot", "sks")
    hub = job.subject.photos.hub
    assert hub is not None
    assert (hub.repo, hub.revision, hub.path) == ("a/b", "c0ffee", "robot")
    assert (job.model.builtin, job.model.repo, job.model.revision) == (None, "c/d", "v1")
    assert job.model.safety_checker == "disabled"
    images = job.class_images
    assert (images.count, images.prompt, images.negative_prompt) == (3, "a {class}", "blurry")
    assert (images.steps, images.guidance, images.scheduler, images.seed) == (4, 5.0, "ddim", 6)
    training = job.training
    assert (training.method, training.prompt) == ("lora", "my {token} {class}")
    assert (training.steps, training.batch_size, training.seed) == (10, 4, 7)
    assert (training.learning_rate, training.prior_weight, training.gradient_clip) == (1.0, 0, 2)
    assert (training.text_encoder, training.keep, training.checkpoint_every) == (False, "last", 5)
    assert (training.lora.rank, training.lora.alpha) == (4, 2.0)
    generation = job.generation
    assert generation.prompts == ("{token} {class}", "a {token} {class}")
    assert (generation.images_per_prompt, generation.negative_prompt) == (8, "text")
    assert (generation.steps, generation.guidance) == (9, 1.5)
    assert (generation.scheduler, generation.seed) == ("unipc", 10)
    assert job.evaluation.encoder == "dino-vits16"
    assert job.evaluation.prompts == ("the {token} {class}",)
    assert job.evaluation.images_per_prompt == 11
    assert (job.cluster.pool, job.cluster.workers) == ("a100", 2)


@pytest.mark.parametrize(
    ("photos", "expected"),
    [
        ({"path": "rex"}, Photos(path="rex")),
        ({"uri": "s3://b/rex", "secretRef": {"name": "keys"}}, Photos(uri="s3://b/rex")),
        ({"configMap": {"name": "rex"}}, Photos(config_map="rex")),
        ({"secret": {"name": "rex"}}, Photos(secret="rex")),
    ],
)
def test_each_photo_source(photos: dict[str, Any], expected: Photos) -> None:
    assert a_job(**{"spec.subject.photos": photos}).subject.photos == expected


def test_numbers_of_the_job_are_floats_even_where_the_manifest_has_whole_ones() -> None:
    job = a_job(
        **{"spec.training": {"learningRate": 1, "priorWeight": 2}, "spec.generation.guidance": 7}
    )
    numbers = (job.training.learning_rate, job.training.prior_weight, job.generation.guidance)
    assert [type(number) for number in numbers] == [float] * 3


@pytest.mark.parametrize(
    ("lora", "rank", "alpha"),
    [(None, 8, 8.0), ({}, 8, 8.0), ({"rank": 16}, 16, 16.0), ({"alpha": 4}, 8, 4.0)],
)
def test_alpha_is_the_rank_when_left_out(
    lora: dict[str, Any] | None, rank: int, alpha: float
) -> None:
    training = a_job(**{"spec.training.method": "lora", "spec.training.lora": lora}).training
    assert (training.lora.rank, training.lora.alpha) == (rank, alpha)


def test_a_field_that_is_null_counts_as_left_out() -> None:
    document = a_manifest()
    document["spec"] |= {"training": None, "generation": {"steps": None, "prompts": None}}
    assert parse_job(document, "job.yaml", Path()) == a_job(**{"spec.generation": {}})


def test_a_safety_checker_is_used_unless_the_manifest_disables_it() -> None:
    models = ({"builtin": "emoji"}, {"path": "models/sd"}, {"repo": "c/d", "revision": "v1"})
    assert a_job().model.safety_checker == "auto"
    assert {a_job(**{"spec.model": model}).model.safety_checker for model in models} == {"auto"}


def test_a_whole_number_may_be_written_as_a_fraction() -> None:
    job = a_job(**{"spec.training.steps": 1e3})
    assert (job.training.steps, type(job.training.steps)) == (1000, int)


def test_the_given_document_stays_as_it_was() -> None:
    document = a_manifest(**{"spec.model": {"path": "sd"}})
    before = copy.deepcopy(document)
    parse_job(document, "job.yaml", Path())
    assert document == before


def test_defaults_are_not_shared_between_jobs() -> None:
    first, second = a_job(), a_job()
    first.manifest["spec"]["generation"]["prompts"].append("more")
    assert second.manifest["spec"]["generation"]["prompts"] == ["photo of a {token} {class}"]
    assert a_job() == second


def test_the_defaulted_manifest_gives_the_same_job_again() -> None:
    job = a_job(**{"spec.training": {"method": "lora"}})
    assert parse_job(job.manifest, "job.yaml", Path()) == job


def test_a_manifest_that_kubectl_printed_is_read() -> None:
    document = a_manifest() | {"status": {"phase": "Succeeded", "conditions": "whatever"}}
    document["metadata"] |= {
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "generation": 1,
        "labels": {"team": "a"},
        "managedFields": [{"manager": "kubectl"}],
        "resourceVersion": "7",
        "uid": "1f2e",
    }
    job = parse_job(document, "job.yaml", Path())
    assert job.id == "rex-1f2e"
    assert "status" not in job.manifest


@pytest.mark.parametrize("path", GOOD, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_is_valid(path: Path) -> None:
    assert load_job(path).manifest_dir == path.parent


@given(
    steps=st.integers(1, 100_000),
    rate=st.floats(0, 1, exclude_min=True),
    workers=st.integers(1, 64),
    pairs=st.integers(1, 16),
    noun=st.from_regex(r"[a-z]{1,20}( [a-z]{1,20})?", fullmatch=True),
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), max_size=200),
)
def test_a_job_survives_being_written_and_read(
    steps: int,
    rate: float,
    workers: int,
    pairs: int,
    noun: str,
    text: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    prompt = f"{text} {{token}} {{class}}"
    job = a_job(
        **{
            "spec.subject.class": noun,
            "spec.training": {
                "steps": steps,
                "learningRate": rate,
                "batchSize": workers * pairs,
            },
            "spec.cluster.workers": workers,
            "spec.generation.prompts": [prompt],
        }
    )
    assert (job.training.steps, job.training.learning_rate) == (steps, rate)
    assert (job.subject.class_noun, job.generation.prompts) == (noun, (prompt,))
    file = tmp_path_factory.mktemp("job") / "job.yaml"
    file.write_text(yaml.safe_dump(job.manifest))
    assert load_job(file).manifest == job.manifest


# What people are told about a bad one.


def expectations(path: Path) -> list[str]:
    """The words its first lines ask for: `expect` of every judge, `says` of this one."""
    comments = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    return [line.partition(": ")[2] for line in comments]


def test_there_are_bad_manifests_and_each_says_what_to_expect() -> None:
    assert len(BAD) >= 30
    assert [path.name for path in BAD if not expectations(path)] == []


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_manifest_is_refused_with_the_expected_words(path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_job(path)
    for words in expectations(path):
        assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3, "one mistake, one problem"


def test_one_problem_is_an_error_with_field_and_remedy() -> None:
    error = refusal(a_manifest(**{"spec.training.steps": 0}))
    assert error.field == "spec.training.steps"
    assert error.message == "found 0"
    assert error.remedy == "Give a whole number from 1 to 100000."


def test_a_broken_rule_is_an_error_with_field_and_remedy() -> None:
    error = refusal(a_manifest(**{"spec.training": {"lora": {"rank": 2}}}))
    assert error.field == "spec.training.lora"
    assert str(error) == (
        "spec.training.lora: lora needs method: lora. Set it, or remove the lora settings."
    )


def test_a_value_of_another_type_than_the_listed_ones_is_told_once() -> None:
    assert str(refusal(a_manifest(**{"spec.training.method": 7}))) == (
        "spec.training.method: found 7. Give one of full, lora."
    )


def test_all_problems_come_at_once_one_a_line() -> None:
    document = a_manifest(
        **{
            "metadata.name": "Rex",
            "spec.training": {"steps": "many", "methd": "lora"},
            "spec.generation.prompts": ["a dog"],
        }
    )
    assert str(refusal(document)).splitlines() == [
        "job.yaml: 4 problems",
        '  spec.training.steps: found "many". Give a whole number from 1 to 100000.',
        "  spec.training.methd: no such field. Did you mean method?",
        "  metadata.name: Name the job with at most 34 lower-case letters, digits and dashes, a"
        " letter first and no dash last. The names of its Ray clusters are built from it.",
        '  spec.generation.prompts[0]: Put {token} and {class} into the prompt, as in "photo of a'
        ' {token} {class} on the moon".',
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "is missing"),
        (True, "found true"),
        (3.5, "found 3.5"),
        ([], "found an empty list"),
        ({}, "found an empty block"),
        ({"name": "dog"}, "found a block with name"),
        ("x" * 65, f'found "{"x" * 59}… (65 characters)'),
    ],
)
def test_what_was_found_is_shown_as_it_was_written(value: Any, shown: str) -> None:
    assert shown in refused(**{"spec.subject.class": value})


@pytest.mark.parametrize(
    "number",
    [math.nan, math.inf, -math.inf, 10**400],
    ids=lambda number: f"{number:.3g}" if isinstance(number, float) else "huge",
)
def test_numbers_that_no_server_takes_are_refused(number: float) -> None:
    assert "spec.training.learningRate: found" in refused(**{"spec.training.learningRate": number})


def test_a_line_end_behind_a_name_is_refused() -> None:
    assert "spec.queueName" in refused(**{"spec.queueName": "team\n"})


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "kind: job.yaml has no kind"),
        ({"kind": "Pod", "apiVersion": "v1"}, "job.yaml has kind Pod"),
        ({"kind": "DreamBoothJob"}, "apiVersion: job.yaml has no apiVersion"),
        (
            {"kind": "DreamBoothJob", "apiVersion": "dreambooth.dev/v9"},
            "job.yaml has apiVersion dreambooth.dev/v9",
        ),
    ],
)
def test_another_kind_is_refused(document: dict[str, Any], words: str) -> None:
    error = str(refusal(document))
    assert words in error
    assert "begins with apiVersion: dreambooth.dev/v1alpha1 and kind: DreamBoothJob" in error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metadata": None}, "metadata.name: is missing"),
        ({"metadata": {}}, "metadata.name: is missing. Give the job a name"),
        ({"metadata": {"generateName": "rex-"}}, "metadata.name: is missing"),
        ({"metadata": []}, "metadata: found an empty list"),
        ({"metadata.name": 7}, "metadata.name: found 7. Give text, in quotes."),
        ({"metadata.uid": "../../x"}, "metadata.uid"),
        ({"metadata.lables": {}}, "Did you mean labels?"),
        ({"metadata.labels": {"a": 1}}, "metadata.labels.a: found 1"),
        ({"metadata.labels": {"a.b/c": 1}}, 'metadata.labels["a.b/c"]: found 1'),
        ({"spec": None}, "spec: is missing"),
        ({"spec": []}, "spec: found an empty list"),
        ({"spec": {}}, "spec.subject: is missing"),
        ({"specs": {}}, "specs: no such field. Did you mean spec?"),
    ],
)
def test_the_frame_of_the_manifest_is_checked(changes: dict[str, Any], words: str) -> None:
    assert words in refused(**changes)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("spec.training.LearningRate", "learningRate"),
        ("spec.training.batch_size", "batchSize"),
        ("spec.class_images", "classImages"),
        ("spec.generation.prompt", "prompts"),
        ("spec.ttlSecondsAfterFinish", "ttlSecondsAfterFinished"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_known(path: str, field: str) -> None:
    assert f"{path}: no such field. Did you mean {field}?" in refused(**{path: {}})


def test_an_unknown_field_without_a_near_one_is_refused_with_all_known() -> None:
    words = refused(**{"spec.training.lora": {"dropout": 0.1}, "spec.training.method": "lora"})
    assert "spec.training.lora.dropout: no such field. Known here: rank, alpha." in words


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
names = st.sampled_from(
    ["class", "token", "photos", "path", "prompts", "steps", "name", "lora", "rank", "workers"]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)


@given(part=st.sampled_from(sorted(job_schema()["properties"]["spec"]["properties"])), value=values)
def test_any_value_at_any_part_is_a_job_or_a_user_error(part: str, value: Any) -> None:
    document = a_manifest()
    document["spec"][part] = value
    try:
        job = parse_job(document, "job.yaml", Path())
    except UserError as error:
        assert "spec" in str(error)
    else:
        assert with_defaults(job.manifest, job_schema()) == job.manifest
