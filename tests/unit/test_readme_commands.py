"""What the end-to-end test types is what the README shows."""

from pathlib import Path

import pytest

from tests.e2e.readme import commands

ROOT = Path(__file__).resolve().parents[2]


def test_five_commands_lead_from_nothing_to_pictures() -> None:
    typed = commands((ROOT / "README.md").read_text(encoding="utf-8"), "On Kubernetes")
    assert len(typed) == 5
    assert typed[0].startswith("helm install ") and "my-cluster.yaml" in typed[0]
    assert "kubectl apply -f examples/kubernetes/robot" in typed
    assert typed[-1].startswith("kubectl dreambooth images robot")


def test_prompts_comments_and_output_are_no_part_of_a_command() -> None:
    block = "```console\n$ run a#b   # why\nits output\n$ again\n```\n"
    document = f"# Title\n## Here\ntext\n{block}## There\n```console\n$ not this\n```\n"
    assert commands(document, "Here") == ["run a#b", "again"]


@pytest.mark.parametrize(
    ("document", "complaint"),
    [("# Other\n", "no heading"), ("# Here\n```yaml\n```\n# Next\n", "0 console blocks")],
)
def test_a_readme_without_the_block_is_refused(document: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        commands(document, "Here")
