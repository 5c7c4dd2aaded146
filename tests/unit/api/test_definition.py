"""The API's definition keeps the conventions that its first lines name."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from dreambooth.api.crd import Schema, api_version, definition, job_schema, kind, with_defaults
from dreambooth.api.schema import schema_problems
from dreambooth.models import defaults as family_defaults

TYPES = {"object", "array", "string", "integer", "number", "boolean"}
# What Kubernetes allows in a structural schema and this API uses.
KEYWORDS = {
    "default",
    "description",
    "enum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-validations",
}


def nodes(schema: Schema, at: str = "") -> Iterator[tuple[str, Schema]]:
    """All fields and list entries below the schema, but for the metadata that Kubernetes owns."""
    for name, field in schema.get("properties", {}).items():
        path = f"{at}.{name}" if at else name
        if path != "metadata":
            yield path, field
            yield from nodes(field, path)
    if "items" in schema:
        yield f"{at}[]", schema["items"]
        yield from nodes(schema["items"], f"{at}[]")


NODES = dict(nodes(job_schema()))


def of_type(*types: str) -> list[str]:
    return [at for at, node in NODES.items() if node["type"] in types]


def having(keyword: str) -> list[str]:
    return [at for at, node in NODES.items() if keyword in node]


@pytest.mark.parametrize("at", NODES)
def test_a_field_is_structural(at: str) -> None:
    node = NODES[at]
    assert node["type"] in TYPES
    assert set(node) <= KEYWORDS


@pytest.mark.parametrize("at", [at for at in NODES if not at.endswith("[]")])
def test_a_field_is_described_in_sentences(at: str) -> None:
    description = NODES[at].get("description", "")
    assert re.match(r"[A-Za-z].+\.$", description), description
    assert "  " not in description


@pytest.mark.parametrize("at", of_type("object"))
def test_an_object_lists_its_fields(at: str) -> None:
    assert NODES[at]["properties"]
    assert set(NODES[at].get("required", ())) <= set(NODES[at]["properties"])


@pytest.mark.parametrize("at", of_type("array"))
def test_a_list_is_bounded_and_says_how_it_merges(at: str) -> None:
    node = NODES[at]
    assert node["maxItems"] > 0
    assert node["x-kubernetes-list-type"] in ("atomic", "map")
    if node["x-kubernetes-list-type"] == "map":
        keys = node["x-kubernetes-list-map-keys"]
        assert keys
        assert set(keys) <= set(node["items"]["required"])


@pytest.mark.parametrize("at", [at for at in of_type("string") if "." in at])
def test_a_text_is_bounded(at: str) -> None:
    assert "enum" in NODES[at] or NODES[at]["maxLength"] > 0


@pytest.mark.parametrize("at", having("pattern"))
def test_a_pattern_is_anchored_and_of_both_dialects(at: str) -> None:
    pattern = NODES[at]["pattern"]
    assert re.fullmatch(r"\^.*\$", pattern)
    # RE2 has neither; an alternative at the top would escape the anchors.
    assert "(?" not in pattern
    assert not re.search(r"\\[1-9]", pattern)
    depth0 = re.sub(r"\([^()]*\)", "", re.sub(r"\[[^\]]*\]", "", pattern))
    assert "|" not in depth0


@pytest.mark.parametrize(
    "at", [at for at in of_type("integer", "number") if at.startswith("spec.")]
)
def test_a_number_that_people_write_is_bounded(at: str) -> None:
    assert NODES[at]["minimum"] < NODES[at]["maximum"]


@pytest.mark.parametrize("at", having("default"))
def test_a_default_is_valid(at: str) -> None:
    node = NODES[at]
    assert schema_problems(with_defaults(node["default"], node), node) == []


@pytest.mark.parametrize("at", having("x-kubernetes-validations"))
def test_a_rule_has_a_message_of_sentences(at: str) -> None:
    for rule in NODES[at]["x-kubernetes-validations"]:
        assert re.search(r"[.)]$", rule["message"])
        assert "\n" not in rule["message"]
        assert set(rule) <= {"rule", "message", "fieldPath"}


def test_what_depends_on_the_model_family_has_no_default() -> None:
    chosen = ["classImages.count", "training.steps", "training.learningRate"]
    chosen += ["training.method", "training.textEncoder"]
    for part in ("classImages", "generation"):
        chosen += [f"{part}.{name}" for name in ("steps", "guidance", "scheduler")]
    assert [name for name in chosen if "default" in NODES[f"spec.{name}"]] == []


def test_the_schedulers_are_those_of_the_runtime() -> None:
    from dreambooth.models.schedulers import SCHEDULERS

    for part in ("classImages", "generation"):
        assert set(NODES[f"spec.{part}.scheduler"]["enum"]) == set(SCHEDULERS)


def test_the_encoders_include_every_family_default() -> None:
    known = set(NODES["spec.evaluation.encoder"]["enum"])
    families = [family_defaults.EMOJI, *family_defaults.FAMILIES.values()]
    assert {family.encoder for family in families} <= known


def test_descriptions_give_the_family_defaults_as_they_are() -> None:
    stable, emoji = family_defaults.STABLE_DIFFUSION, family_defaults.EMOJI
    count = NODES["spec.classImages.count"]["description"]
    assert f"{stable.class_images} for Stable Diffusion" in count
    assert f"{emoji.class_images} for the built-in model" in count
    assert (
        f"{stable.training_steps} for Stable Diffusion"
        in NODES["spec.training.steps"]["description"]
    )
    assert (
        f"{emoji.training_steps} for the built-in model"
        in NODES["spec.training.steps"]["description"]
    )
    pairs = NODES["spec.training.batchSize"]["description"]
    assert f"{stable.batch_size} for Stable Diffusion" in pairs
    assert f"{emoji.batch_size} for the built-in model" in pairs
    guidance = NODES["spec.classImages.guidance"]["description"]
    assert f"{stable.class_guidance:g} for Stable Diffusion" in guidance
    assert f"{emoji.class_guidance:g} for the built-in model" in guidance
    schedule = NODES["spec.training.learningRateSchedule"]["description"]
    assert f"{stable.learning_rate_schedule} for Stable Diffusion" in schedule
    assert f"{emoji.learning_rate_schedule} for the built-in model" in schedule
    assert float(stable.learning_rate) == 5e-6
    assert "5e-6 for Stable Diffusion" in NODES["spec.training.learningRate"]["description"]
    families = [family_defaults.EMOJI, *family_defaults.FAMILIES.values()]
    large = [family_defaults.STABLE_DIFFUSION_XL, family_defaults.STABLE_DIFFUSION_3]
    assert [family for family in families if family.method == "lora"] == large
    assert [family for family in families if not family.text_encoder] == large
    for name in ("method", "textEncoder"):
        words = NODES[f"spec.training.{name}"]["description"]
        assert "for SDXL and Stable Diffusion 3" in words


def test_stages_are_those_of_the_pipeline() -> None:
    from dreambooth.pipeline.progress import StageName

    names = [stage.value for stage in StageName]
    assert NODES["status.stage"]["enum"] == names
    assert NODES["status.stages[].name"]["enum"] == names


def test_conditions_are_those_of_kubernetes() -> None:
    condition = NODES["status.conditions[]"]
    assert set(condition["properties"]) == {
        "type",
        "status",
        "observedGeneration",
        "lastTransitionTime",
        "reason",
        "message",
    }


def test_columns_show_fields_that_exist() -> None:
    columns: list[dict[str, Any]] = definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    for column in columns:
        path = column["jsonPath"].removeprefix(".")
        assert path in NODES or path == "metadata.creationTimestamp"


def test_names() -> None:
    names = definition()["spec"]["names"]
    assert (api_version(), kind()) == ("dreambooth.dev/v1alpha1", names["kind"])
    assert names["shortNames"] == ["dbj"]
    assert definition()["spec"]["versions"][0]["subresources"] == {"status": {}}
