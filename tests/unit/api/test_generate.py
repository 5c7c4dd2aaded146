"""The generated files follow from the API, and a stale one is noticed."""

import base64
import shutil
from pathlib import Path

import pytest
import yaml

from tools.generate.__main__ import CRD, OUTPUTS, PHOTOS, generate, main, stale
from tools.generate.reference import manifest_reference

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with nothing but what files are generated from."""
    (tmp_path / CRD).parent.mkdir()
    shutil.copy(ROOT / CRD, tmp_path / CRD)
    shutil.copytree(ROOT / PHOTOS, tmp_path / PHOTOS)
    return tmp_path


def test_the_generated_files_of_this_repository_are_up_to_date() -> None:
    assert stale(ROOT) == []
    assert main(["--check"]) == 0


def test_generating_makes_every_file_once(repository: Path) -> None:
    assert len(stale(repository)) == len(OUTPUTS)
    assert generate(repository) == [output.path for output in OUTPUTS]
    assert stale(repository) == []
    assert generate(repository) == []


def test_a_changed_description_makes_copy_and_reference_stale(repository: Path) -> None:
    generate(repository)
    crd = repository / CRD
    crd.write_text(crd.read_text().replace("Pictures of each prompt.", "How many a prompt."))
    diffs = "\n".join(stale(repository))
    of_the_api = [output.path for output in OUTPUTS if "photos" not in output.path]
    for path in of_the_api:
        assert f"--- {path} (found)" in diffs
    assert diffs.count("How many a prompt.") == len(of_the_api) == 3


def test_the_photos_of_the_cluster_example_are_those_of_the_local_one() -> None:
    manifest = yaml.safe_load((ROOT / "examples/kubernetes/robot/photos.yaml").read_text())
    files = sorted((ROOT / PHOTOS).iterdir())
    assert list(manifest["binaryData"]) == [file.name for file in files]
    for file in files:
        assert base64.b64decode(manifest["binaryData"][file.name]) == file.read_bytes()


def test_the_copy_means_the_same() -> None:
    copy = yaml.safe_load((ROOT / OUTPUTS[0].path).read_text())
    assert copy == yaml.safe_load((ROOT / CRD).read_text())


def test_the_reference_has_every_field_rule_and_link() -> None:
    text = (ROOT / CRD).read_text()
    reference = manifest_reference(text)
    schema = yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    def check(node: dict[str, object], path: str) -> None:
        properties = node.get("properties")
        assert isinstance(properties, dict)
        section = reference.split(f"# {path}\n", 1)[1].split("\n## ")[0].split("\n### ")[0]
        for name, field in properties.items():
            assert f"| `{name}`" in section
            for rule in field.get("x-kubernetes-validations", ()):
                assert rule["message"] in reference or rule["rule"] == "self == oldSelf"
            if "properties" in field:
                check(field, f"{path}.{name}")
            elif "properties" in field.get("items", {}):
                check(field["items"], f"{path}.{name}[]")

    check(schema["properties"]["spec"], "spec")
    check(schema["properties"]["status"], "status")


def test_the_tables_of_the_reference_have_no_torn_rows() -> None:
    reference = (ROOT / "docs/reference/manifest.md").read_text()
    for line in reference.splitlines():
        if line.startswith("|"):
            cells = line.replace("\\|", "").strip("|").split("|")
            assert len(cells) in (3, 4), line
