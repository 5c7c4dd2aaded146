"""Digests identify content."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dreambooth.workspace.digest import digest_of, tree_digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert digest_of(value) == digest_of(backwards)


def test_a_tree_changes_with_names_contents_and_depth(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = tree_digest(tmp_path)
    (tmp_path / "a").write_text("2")
    second = tree_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    third = tree_digest(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "b").rename(tmp_path / "d" / "b")
    assert len({first, second, third, tree_digest(tmp_path)}) == 4
