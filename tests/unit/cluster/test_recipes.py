"""An image is built anew when something that it is made from changed, and only then."""

import re
from pathlib import Path

import pytest

from localcluster import recipes
from localcluster.errors import ClusterError
from localcluster.recipes import Image


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """An image made from one folder and one file of a small repository."""
    files = {
        "part/Dockerfile": "FROM scratch",
        "part/Dockerfile.dockerignore": "# what it needs\n*\n!LICENSE\n!part\n**/__pycache__\n",
        "part/code/main.py": "print()",
        "part/code/__pycache__/main.pyc": "cached",
        "LICENSE": "free",
        "README.md": "read me",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Image("part", tmp_path / "part" / "Dockerfile", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "rebuilds"),
    [
        ("part/code/main.py", True),
        ("part/code/new.py", True),
        ("part/Dockerfile", True),
        ("part/Dockerfile.dockerignore", True),
        ("LICENSE", True),
        ("README.md", False),
        ("part/code/__pycache__/main.pyc", False),
    ],
)
def test_a_changed_file_counts_if_the_build_can_see_it(
    image: Image, name: str, rebuilds: bool
) -> None:
    before = recipes.inputs(image, "base")
    with (image.root / name).open("a") as file:
        file.write("# changed\n")
    assert (recipes.inputs(image, "base") != before) == rebuilds


def test_another_base_or_another_argument_makes_another_image(image: Image) -> None:
    other = Image(image.name, image.dockerfile, (("ACCELERATOR", "cpu"),), image.root)
    digests = {recipes.inputs(image, "a"), recipes.inputs(image, "b"), recipes.inputs(other, "a")}
    assert len(digests) == 3


@pytest.mark.parametrize("text", [None, "", "**/__pycache__\n"])
def test_a_dockerfile_without_a_list_of_what_it_needs_is_refused(
    image: Image, text: str | None
) -> None:
    if text is None:
        image.ignore.unlink()
    else:
        image.ignore.write_text(text)
    with pytest.raises(ClusterError, match="has to begin with"):
        recipes.inputs(image, "base")


@pytest.mark.parametrize(
    "image", [i for i in recipes.ALL if i.dockerfile.exists()], ids=lambda image: image.name
)
def test_what_a_dockerfile_copies_is_on_its_list(image: Image) -> None:
    text = image.dockerfile.read_text()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
        if not source.startswith("--")
    ]
    visible = recipes.context(image)
    assert copied
    for source in copied:
        top = image.root / source
        assert any(path.is_relative_to(top) for path in visible), source
