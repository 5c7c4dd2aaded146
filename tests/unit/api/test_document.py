"""How a manifest file is read."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dreambooth.api.document import MAX_BYTES, parse_document, read_document
from dreambooth.errors import ExitCode, UserError


def field(text: str) -> Any:
    """What `field: <text>` means."""
    return parse_document(f"field: {text}", "job.yaml")["field"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("5e-6", 5e-6),
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-0.5", -0.5),
        ("7", 7),
        ("1_000", 1000),
        ("0x1f", 31),
        ("010", 8),
        ("08", 8.0),
        ("true", True),
        ("no", False),
        ("~", None),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("b95be7d6", "b95be7d6"),
        ("'5e-6'", "5e-6"),
        ("v1.5", "v1.5"),
        ("1.5.2", "1.5.2"),
        ("-", [None]),
    ],
)
def test_a_value_means_what_kubectl_takes_it_for(written: str, meant: Any) -> None:
    if written == "-":
        assert parse_document("field:\n- ", "job.yaml") == {"field": meant}
    else:
        found = field(written)
        assert (found, type(found)) == (meant, type(meant))


texts = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, min_size=1, max_size=3))
def test_whatever_can_be_written_is_read_back(document: dict[str, Any]) -> None:
    text = yaml.safe_dump(document)
    assert parse_document(text, "job.yaml") == document


@given(st.text())
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        found = parse_document(text, "job.yaml")
    except UserError as error:
        assert str(error).startswith("job.yaml: ")
        assert error.exit_code is ExitCode.USER_ERROR
        assert "\n" not in str(error)
    else:
        assert isinstance(found, dict)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("# nothing but this\n---\n", "is empty"),
        ("- a\n- b\n", "holds no fields"),
        ("just words", "holds no fields"),
        ("a: 1\n---\nb: 2\n", "holds 2 documents"),
        ("a: 1\nb: 2\na: 3\n", 'the field "a" is given twice, line 3, column 1'),
        ("a: {b: {c: 1, c: 2}}\n", 'the field "c" is given twice, line 1, column 15'),
        ("a: [1, 2\nb: 3\n", "line 2"),
        ("a: b: c\n", "line 1, column 5"),
        ("\ta: 1\n", "line 1, column 1"),
        ("on: push\n", "a field's name must be text, found on"),
        ("? [a]\n: 1\n", "a field's name must be text"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("a: *b\n", "undefined alias"),
        ("a: \x07\n", "special characters are not allowed"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: !!int x\n", "impossible value"),
    ],
)
def test_what_is_no_manifest_is_refused_with_the_place(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_document(text, "job.yaml")
    assert words in str(caught.value)
    assert caught.value.field == "job.yaml"
    assert caught.value.remedy


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(UserError, match="more than 20000 values"):
        parse_document("\n".join(lines), "job.yaml")


def test_a_document_inside_itself_is_refused() -> None:
    with pytest.raises(UserError, match="more than 20000 values"):
        parse_document("a: &a\n  b: *a\n", "job.yaml")


def test_a_document_between_separators_is_one_document() -> None:
    assert parse_document("---\na: 1\n---\n", "job.yaml") == {"a": 1}


def test_aliases_and_merged_blocks_are_read() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n"
    assert parse_document(text, "job.yaml")["b"] == {"x": 1, "y": 3}


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\n")
    assert read_document(file) == {"a": "é"}


def refusal(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        read_document(path)
    assert caught.value.field == str(path)
    assert caught.value.remedy
    return caught.value


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in str(refusal(tmp_path / "job.yaml"))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in str(refusal(tmp_path))


def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("a: 1")
    assert "cannot be read" in str(refusal(tmp_path / "job.yaml" / "job.yaml"))


def test_a_file_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root, whom containers often run tests as, may read any file.
    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert "permission denied" in str(refusal(tmp_path / "job.yaml"))


def test_a_picture_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "no UTF-8 text" in str(refusal(file))


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("#" * (MAX_BYTES + 1))
    assert "larger than 1024 KiB" in str(refusal(file))
