"""For every rule of the API a job that keeps it and one that breaks it.

A rule is known by the place it stands at and words of its message. The table is for any judge: the
runtime's own (`test_rules.py`) and a real API server.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

API_VERSION = "dreambooth.dev/v1alpha1"


def a_manifest(**changes: Any) -> dict[str, Any]:
    """The smallest job, with fields set by path: `a_manifest(**{"spec.training.steps": 3})`.

    A field set to None is removed.
    """
    manifest: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "DreamBoothJob",
        "metadata": {"name": "rex"},
        "spec": {"subject": {"class": "dog", "photos": {"path": "photos/rex"}}},
    }
    for path, value in changes.items():
        *parents, name = path.split(".")
        place = manifest
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(name, None)
        else:
            place[name] = copy.deepcopy(value)
    return manifest


@dataclass(frozen=True)
class RuleCase:
    """One rule and jobs on both of its sides.

    Attributes:
        at: The place in the schema that the rule stands at; `[]` is an entry of a list.
        message: Words of its message that no other rule of this place has.
        keeps: Changes to the smallest job that the rule allows.
        breaks: Changes that it refuses, each a case of its own.
        before: For a transition rule: changes that give the job before.
    """

    at: str
    message: str
    keeps: tuple[dict[str, Any], ...]
    breaks: tuple[dict[str, Any], ...]
    before: dict[str, Any] = field(default_factory=dict)


_PHOTOS = "spec.subject.photos"
_TOKEN_PROMPT = "a {token} {class} on the moon"


def _relative_path(at: str, **others: Any) -> RuleCase:
    """The rule for a path that must not leave its folder."""
    good = ("rex", "photos/rex", "a..b/c", "...", "./rex", "rex/", "photos of rex/é")
    bad = ("/etc", "..", "../rex", "a/../b", "a/..", "photos\\rex")
    return RuleCase(
        at,
        "Give a path relative to",
        keeps=tuple({**others, at: path} for path in good),
        breaks=tuple({**others, at: path} for path in bad),
    )


def _prompt(at: str, key: str, wrap: bool) -> tuple[RuleCase, RuleCase]:
    """The rules for a prompt about the subject."""

    def change(prompt: str) -> dict[str, Any]:
        return {key: [prompt] if wrap else prompt}

    return (
        RuleCase(
            at,
            "Put {token} and {class}",
            keeps=(change(_TOKEN_PROMPT), change("{class}{token}")),
            breaks=(change("a {class}"), change("a {token}"), change("a dog")),
        ),
        RuleCase(
            at,
            "Only {token} and {class} can stand in braces",
            keeps=(change(_TOKEN_PROMPT), change('"$(id)" `{token}`\n{class}; \\ é 犬')),
            breaks=(
                change(_TOKEN_PROMPT + " {style}"),
                change(_TOKEN_PROMPT + " {"),
                change(_TOKEN_PROMPT + "\n}"),
                change("{{token}} {class}"),
            ),
        ),
    )


def _fixed(name: str, before: Any, after: Any) -> RuleCase:
    """The rule for a field that cannot be changed."""
    path = f"spec.{name}"
    return RuleCase(
        path,
        f"{name} cannot be changed",
        keeps=({path: before},),
        breaks=({path: after},),
        before={path: before},
    )


RULE_CASES: tuple[RuleCase, ...] = (
    RuleCase(
        "",
        "Name the job",
        keeps=(
            {"metadata.name": "rex"},
            {"metadata.name": "r"},
            {"metadata.name": "a" * 34},
            {"metadata.name": "rex-2"},
        ),
        breaks=(
            {"metadata.name": "a" * 35},
            {"metadata.name": "2rex"},
            {"metadata.name": "rex.v2"},
        ),
    ),
    RuleCase(
        "spec",
        "batchSize counts the pairs",
        keeps=(
            {"spec.training.batchSize": 6, "spec.cluster.workers": 3},
            {"spec.training.batchSize": 2, "spec.cluster.workers": 2},
            {"spec.cluster.workers": 5},
        ),
        breaks=(
            {"spec.training.batchSize": 4, "spec.cluster.workers": 3},
            {"spec.training.batchSize": 2, "spec.cluster.workers": 4},
        ),
    ),
    RuleCase(
        "spec",
        "workspace cannot be added or removed",
        keeps=({"spec.workspace": {"claimName": "team"}, "spec.suspend": True},),
        breaks=({},),
        before={"spec.workspace": {"claimName": "team"}},
    ),
    _fixed(
        "subject",
        {"class": "dog", "photos": {"path": "rex"}},
        {"class": "cat", "photos": {"path": "rex"}},
    ),
    _fixed("model", {"path": "models/sd"}, {"builtin": "emoji"}),
    _fixed("classImages", {"count": 10}, {"count": 11}),
    _fixed("training", {"learningRate": 1e-5}, {"learningRate": 2e-5}),
    _fixed("generation", {"prompts": [_TOKEN_PROMPT]}, {"prompts": ["{token} {class}"]}),
    _fixed("evaluation", {"imagesPerPrompt": 8}, {"imagesPerPrompt": 9}),
    _fixed("cluster", {"pool": "a100"}, {"pool": "h100"}),
    _fixed("workspace", {"claimName": "team"}, {"size": "10Gi"}),
    _fixed("retries", 1, 2),
    RuleCase(
        "spec.subject",
        "token must differ from class",
        keeps=({"spec.subject.token": "sks"}, {}),
        breaks=({"spec.subject.token": "dog"},),
    ),
    RuleCase(
        _PHOTOS,
        "exactly one photo source",
        keeps=(
            {_PHOTOS: {"path": "rex"}},
            {_PHOTOS: {"hub": {"repo": "someone/pets", "revision": "main"}}},
            {_PHOTOS: {"uri": "s3://bucket/rex"}},
            {_PHOTOS: {"configMap": {"name": "rex"}}},
            {_PHOTOS: {"secret": {"name": "rex"}}},
        ),
        breaks=(
            {_PHOTOS: {}},
            {_PHOTOS: {"path": "rex", "uri": "s3://bucket/rex"}},
            {_PHOTOS: {"configMap": {"name": "rex"}, "secret": {"name": "rex"}}},
        ),
    ),
    RuleCase(
        _PHOTOS,
        "secretRef is only for hub and uri",
        keeps=(
            {_PHOTOS: {"uri": "s3://bucket/rex", "secretRef": {"name": "keys"}}},
            {
                _PHOTOS: {
                    "hub": {"repo": "someone/pets", "revision": "main"},
                    "secretRef": {"name": "keys"},
                }
            },
        ),
        breaks=(
            {_PHOTOS: {"path": "rex", "secretRef": {"name": "keys"}}},
            {_PHOTOS: {"secret": {"name": "rex"}, "secretRef": {"name": "keys"}}},
        ),
    ),
    _relative_path(f"{_PHOTOS}.path"),
    _relative_path(
        f"{_PHOTOS}.hub.path",
        **{
            f"{_PHOTOS}.path": None,
            f"{_PHOTOS}.hub.repo": "someone/pets",
            f"{_PHOTOS}.hub.revision": "main",
        },
    ),
    RuleCase(
        f"{_PHOTOS}.uri",
        "Leave user name and password out",
        keeps=(
            {_PHOTOS: {"uri": "https://example.com/rex@2x.png"}},
            {_PHOTOS: {"uri": "https://example.com?mail=a@b"}},
            {_PHOTOS: {"uri": "file:///data/rex"}},
        ),
        breaks=(
            {_PHOTOS: {"uri": "https://me:secret@example.com/rex"}},
            {_PHOTOS: {"uri": "s3://key@bucket/rex"}},
        ),
    ),
    RuleCase(
        "spec.model",
        "exactly one base model",
        keeps=(
            {"spec.model": {"builtin": "emoji"}},
            {"spec.model": {"path": "models/sd"}},
            {"spec.model": {"repo": "someone/model", "revision": "main"}},
            {},
        ),
        breaks=(
            {"spec.model": {}},
            {"spec.model": {"builtin": "emoji", "path": "models/sd"}},
            {"spec.model": {"path": "sd", "repo": "someone/model", "revision": "main"}},
        ),
    ),
    RuleCase(
        "spec.model",
        "Say at which revision",
        keeps=({"spec.model": {"repo": "someone/model", "revision": "v1.0"}},),
        breaks=({"spec.model": {"repo": "someone/model"}},),
    ),
    RuleCase(
        "spec.model",
        "revision belongs to repo",
        keeps=({"spec.model": {"repo": "someone/model", "revision": "v1.0"}},),
        breaks=({"spec.model": {"path": "models/sd", "revision": "v1.0"}},),
    ),
    RuleCase(
        "spec.model",
        "secretRef is only for repo",
        keeps=(
            {
                "spec.model": {
                    "repo": "someone/model",
                    "revision": "main",
                    "secretRef": {"name": "hub"},
                }
            },
        ),
        breaks=({"spec.model": {"builtin": "emoji", "secretRef": {"name": "hub"}}},),
    ),
    _relative_path("spec.model.path"),
    RuleCase(
        "spec.classImages.prompt",
        "Put {class} where",
        keeps=({"spec.classImages.prompt": "{class}"},),
        breaks=({"spec.classImages.prompt": "a dog"},),
    ),
    RuleCase(
        "spec.classImages.prompt",
        "Leave {token} out",
        keeps=({"spec.classImages.prompt": "a {class}, no token"},),
        breaks=({"spec.classImages.prompt": "a {token} {class}"},),
    ),
    RuleCase(
        "spec.classImages.prompt",
        "Only {class} can stand in braces",
        keeps=({"spec.classImages.prompt": "a {class}\non grass"},),
        breaks=(
            {"spec.classImages.prompt": "a {class} on {ground}"},
            {"spec.classImages.prompt": "a {class} }"},
        ),
    ),
    RuleCase(
        "spec.training",
        "lora needs method: lora",
        keeps=(
            {"spec.training": {"method": "lora", "lora": {}}},
            {"spec.training": {"method": "lora"}},
            {"spec.training": {"method": "full"}},
        ),
        breaks=(
            {"spec.training": {"lora": {}}},
            {"spec.training": {"method": "full", "lora": {"rank": 4}}},
        ),
    ),
    RuleCase(
        "spec.training",
        "checkpointEvery must not be greater",
        keeps=(
            {"spec.training": {"steps": 100, "checkpointEvery": 100}},
            {"spec.training": {"checkpointEvery": 50}},
            {"spec.training": {"steps": 1}},
        ),
        breaks=({"spec.training": {"steps": 100, "checkpointEvery": 101}},),
    ),
    *_prompt("spec.training.prompt", "spec.training.prompt", wrap=False),
    *_prompt("spec.generation.prompts[]", "spec.generation.prompts", wrap=True),
    *_prompt("spec.evaluation.prompts[]", "spec.evaluation.prompts", wrap=True),
    *(
        RuleCase(
            at,
            "Give each prompt once",
            keeps=({at: ["a {token} {class}", "the {token} {class}"]},),
            breaks=({at: ["a {token} {class}", "the {token} {class}", "a {token} {class}"]},),
        )
        for at in ("spec.generation.prompts", "spec.evaluation.prompts")
    ),
    RuleCase(
        "spec.workspace",
        "Give either claimName",
        keeps=({"spec.workspace": {"claimName": "team"}}, {"spec.workspace": {"size": "10Gi"}}),
        breaks=(
            {"spec.workspace": {}},
            {"spec.workspace": {"claimName": "team", "size": "10Gi"}},
        ),
    ),
    RuleCase(
        "spec.workspace",
        "storageClassName is only for",
        keeps=({"spec.workspace": {"size": "10Gi", "storageClassName": "nfs"}},),
        breaks=({"spec.workspace": {"claimName": "team", "storageClassName": "nfs"}},),
    ),
)
